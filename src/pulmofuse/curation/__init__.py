"""Look at files, find copies, split by patient, audit a manifest."""

from pulmofuse.curation.audit import Audit, audit
from pulmofuse.curation.check import Check
from pulmofuse.curation.copies import patient_groups
from pulmofuse.curation.duplicates import drop_duplicates
from pulmofuse.curation.leaks import drop_leaks, stop_on_leaks
from pulmofuse.curation.pairs import find_pairs
from pulmofuse.curation.reading import read_files, remark_rows, seen_records, unreadable_files
from pulmofuse.curation.remarks import mark_shared_files
from pulmofuse.curation.split import assign_splits, split_hash

__all__ = [
    "Audit",
    "Check",
    "assign_splits",
    "audit",
    "drop_duplicates",
    "drop_leaks",
    "find_pairs",
    "mark_shared_files",
    "patient_groups",
    "read_files",
    "remark_rows",
    "seen_records",
    "split_hash",
    "stop_on_leaks",
    "unreadable_files",
]
