"""The report of a study and the page of an audit: self-contained HTML, figures, a model card."""

from pulmofuse.report.audit_page import write_audit_page
from pulmofuse.report.write import write_report

__all__ = ["write_audit_page", "write_report"]
