"""Drawn chest CT slices, chest X-rays and coughs: the pictures of the synthetic cohort."""

from pulmofuse.sources.phantom.cough import SAMPLE_RATE_HZ, draw_cough
from pulmofuse.sources.phantom.ct import draw_ct
from pulmofuse.sources.phantom.cxr import draw_cxr

__all__ = ["SAMPLE_RATE_HZ", "draw_cough", "draw_ct", "draw_cxr"]
