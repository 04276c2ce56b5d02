"""Fingerprints of files, made once when a file is read; `find_pairs` works on them alone."""

from pulmofuse.curation.image_fingerprint import image_fingerprint
from pulmofuse.curation.sound_fingerprint import sound_fingerprint

__all__ = ["image_fingerprint", "sound_fingerprint"]
