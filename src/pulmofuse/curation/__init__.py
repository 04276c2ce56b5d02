"""Splits by patient, and the audit of a manifest."""

from pulmofuse.curation.audit import Audit, audit
from pulmofuse.curation.check import Check
from pulmofuse.curation.duplicates import drop_duplicates
from pulmofuse.curation.split import assign_splits, split_hash

__all__ = ["Audit", "Check", "assign_splits", "audit", "drop_duplicates", "split_hash"]
