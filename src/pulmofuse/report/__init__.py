"""The report of a study: figures, one self-contained HTML file, a model card."""

from pulmofuse.report.write import write_report

__all__ = ["write_report"]
