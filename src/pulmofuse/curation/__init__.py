"""Splits by patient, and the audit of a manifest."""

from pulmofuse.curation.split import assign_splits, split_hash

__all__ = ["assign_splits", "split_hash"]
