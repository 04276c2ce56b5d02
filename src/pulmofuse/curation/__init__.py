"""Look at files, find copies, split by patient, audit a manifest."""

from pulmofuse.curation.audit import Audit, audit
from pulmofuse.curation.check import Check
from pulmofuse.curation.duplicates import drop_duplicates
from pulmofuse.curation.reading import read_files, remark_rows, unreadable_files
from pulmofuse.curation.split import assign_splits, split_hash

__all__ = [
    "Audit",
    "Check",
    "assign_splits",
    "audit",
    "drop_duplicates",
    "read_files",
    "remark_rows",
    "split_hash",
    "unreadable_files",
]
