"""Write the report of a study: figures, one HTML file, the model card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pulmofuse.config import dump_config
from pulmofuse.files import write_text
from pulmofuse.report import checklists, data_tables, doubts, fusion_charts, names
from pulmofuse.report.conclusion import conclude
from pulmofuse.report.environment import environment
from pulmofuse.report.limits import check_title, limits, suspicions
from pulmofuse.report.results import (
    answer,
    headline,
    result_tables,
    several_questions,
    site_table,
)
from pulmofuse.report.study_files import StudyFiles, read_study

#: How a reader makes the same study again, from the file beside the report.
_RERUN = "pulmofuse study config.resolved.yaml --data-root DATA --out FOLDER"


def write_report(study_dir: Path) -> Path:
    """Read the files of a study; write `figures/`, `report.html` and `model_card.md` into it.

    The report is one file that loads nothing from anywhere. The same study gives the same bytes.

    Args:
        study_dir: the folder of a finished study (docs/decisions/0001-shape.md lists its files).

    Returns:
        Path of `report.html`.

    Raises:
        StudyError: `predictions.parquet` is missing, or a file is damaged.
    """
    # Matplotlib takes half a second to import, and `--help` must not pay it.
    from pulmofuse.report.charts import draw_charts, truth_scores

    study = read_study(study_dir)
    charts = draw_charts(study, study_dir / "figures")
    context = _context(study) | {
        "charts": charts,
        "truth": truth_scores(study, headline(study)),
    }
    templates = environment()
    page = templates.get_template("report.html.j2").render(context)
    card = templates.get_template("model_card.md.j2").render(context)
    path = study_dir / "report.html"
    write_text(path, page)
    write_text(study_dir / "model_card.md", card)
    return path


def _context(study: StudyFiles) -> dict[str, Any]:
    head = headline(study)
    per_patient, per_file = result_tables(study)
    return {
        "study": study,
        "about": study.about,
        "answer": answer(study),
        "headline": head,
        "suspicions": suspicions(study),
        "known_pairs": doubts.known_pairs(study),
        "limits": limits(study),
        "conclusion": conclude(study),
        "compared": fusion_charts.compared(study),
        "n_compared": fusion_charts.n_compared(study),
        "fusion_controls": fusion_charts.controlled(study),
        "several_questions": several_questions(study),
        "uncontrolled": fusion_charts.why_uncontrolled(study),
        "predictive_values": fusion_charts.predictive_values(study),
        **_checklists(study),
        "checks": [(c, check_title(c)) for c in (study.audit.checks if study.audit else ())],
        "metrics": names.METRICS,
        "same_patients": len({score.n_patients for score in head.scores}) == 1,
        "has_comparison": (study.folder / "comparison.csv").is_file(),
        "per_patient": per_patient,
        "per_file": per_file,
        "sites": site_table(study),
        "splits": data_tables.SPLITS,
        "counts": data_tables.count_rows(study),
        "sources": data_tables.source_rows(study),
        "patients": data_tables.patient_rows(study),
        "galleries": data_tables.galleries(study),
        "explained": data_tables.explained(study),
        "left_out": data_tables.left_out(study),
        "controls": doubts.control_rows(study),
        "odd": doubts.odd_rows(study),
        "leaks": doubts.accepted_leaks(study),
        "pairing": doubts.pairing(study),
        "pairing_chip": doubts.pairing_chip(study),
        "split_text": doubts.split_text(study),
        "has_audit_page": (study.folder / "audit.html").is_file(),
        "config_text": dump_config(study.config) if study.config else "",
        "confidence": study.config.evaluation.confidence if study.config else 0.95,
        "fused_by": names.method_title(head.fused.method) if head.fused else "",
        "colours": names.COLOURS,
        "rerun": _RERUN,
    }


def _checklists(study: StudyFiles) -> dict[str, Any]:
    """The reporting checklists, and how many of their items are open."""
    found = [
        ("TRIPOD+AI", "Collins et al. 2024, BMJ 385:e078378.", checklists.tripod_ai(study)),
        ("CLAIM 2024", "Tejani et al. 2024, Radiology: AI 6(4):e240300.", checklists.claim(study)),
    ]
    return {
        "checklists": found,
        "open_items": sum(row.open for _, _, rows in found for row in rows),
    }
