"""The conclusion says what the figures say; the checklists leave open what no file knows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pulmofuse.errors import StudyError
from pulmofuse.report.checklists import claim, tripod_ai
from pulmofuse.report.conclusion import Conclusion, conclude, p_value
from pulmofuse.report.fusion_files import FusionFiles, read_fusion
from pulmofuse.report.study_files import StudyFiles, read_study
from pulmofuse.report.write import write_report
from tests.report.builder import make_study

FULL = "ct+cxr+cough"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> StudyFiles:
    """A simulated study without any finding of the audit."""
    study = read_study(make_study(tmp_path_factory.mktemp("study"), simulated=True))
    assert study.audit is not None
    return replace(study, audit=replace(study.audit, verdict="pass", checks=()))


def with_gain(study: StudyFiles, value: float, low: float, high: float) -> StudyFiles:
    """The study with one known gain of its headline rule."""
    metrics = study.metrics.copy()
    gain = (metrics["metric"] == "roc_auc_difference") & (metrics["method"] == "log_odds")
    assert gain.any()
    metrics.loc[gain, ["value", "low", "high"]] = value, low, high
    return replace(study, metrics=metrics)


def control(name: str, value: float, against: float = 0.95) -> pd.DataFrame:
    row = {"control": name, "subset": FULL, "method": "log_odds", "metric": "roc_auc"}
    row |= {"value": value, "low": value - 0.05, "high": value + 0.05, "against": against}
    return pd.DataFrame([row])


def tone(found: Conclusion, rule: str) -> str:
    return next(s.tone for s in found.statements if s.rule == rule)


def test_a_gain_that_excludes_zero_is_said_and_bound_to_simulation(built: StudyFiles) -> None:
    found = conclude(with_gain(built, 0.04, 0.01, 0.07))
    assert tone(found, "gain") == "for"
    assert tone(found, "pairing") == "against"
    assert "if the modalities are independent" in found.verdict


def test_true_pairs_are_spoken_of_as_patients(tmp_path: Path) -> None:
    study = read_study(make_study(tmp_path / "paired", simulated=False))
    study = replace(study, audit=None, config=None)
    found = conclude(with_gain(study, 0.04, 0.01, 0.07))
    assert "on these patients" in found.verdict
    assert all(s.rule != "pairing" for s in found.statements)


@pytest.mark.parametrize(("low", "high"), [(-0.01, 0.07), (-0.07, -0.01)])
def test_no_gain_is_claimed_where_the_interval_does_not_lie_above_zero(
    built: StudyFiles, low: float, high: float
) -> None:
    found = conclude(with_gain(built, (low + high) / 2, low, high))
    assert tone(found, "gain") == "against"
    assert found.verdict == "No gain of fusion over the best single modality is shown."


def test_holm_can_take_a_gain_away(built: StudyFiles) -> None:
    study = with_gain(built, 0.04, 0.001, 0.07)
    against = study.metrics.loc[study.metrics["metric"] == "roc_auc_difference", "against"].iloc[0]
    row = {"metric": "roc_auc", "subset_a": FULL, "method_a": "log_odds", "subset_b": against}
    row |= {"method_b": "unimodal", "p_value": 0.04, "p_holm": 0.2}
    found = conclude(replace(study, fusion=FusionFiles(comparisons=pd.DataFrame([row]))))
    assert tone(found, "gain") == "against"
    assert "p = .20 after Holm" in next(s.text for s in found.statements if s.rule == "gain")


def test_confounders_that_do_as_well_end_every_claim(built: StudyFiles) -> None:
    study = with_gain(built, 0.04, 0.01, 0.07)
    near = replace(study, fusion=FusionFiles(controls=control("confounders_only", 0.99)))
    assert "no evidence that disease was recognised" in conclude(near).verdict
    far = replace(study, fusion=FusionFiles(controls=control("confounders_only", 0.52)))
    assert tone(conclude(far), "confounders_only") == "for"


def test_a_costly_noise_modality_speaks_against_the_rule(built: StudyFiles) -> None:
    dear = replace(built, fusion=FusionFiles(controls=control("noise_modality", 0.90)))
    cheap = replace(built, fusion=FusionFiles(controls=control("noise_modality", 0.949)))
    assert tone(conclude(dear), "noise") == "against"
    assert tone(conclude(cheap), "noise") == "note"


@pytest.mark.parametrize(("at_moderate", "expected"), [(0.99, "note"), (0.60, "against")])
def test_dependence_is_weighed_at_a_moderate_correlation(
    built: StudyFiles, at_moderate: float, expected: str
) -> None:
    rho = np.array([0.0, 0.3, 0.9])
    curve = pd.DataFrame({"rho": rho, "value": [0.99, at_moderate, 0.55], "low": np.nan})
    curve = curve.assign(high=np.nan, subset=FULL, metric="roc_auc", weight_rule="one")
    found = conclude(replace(built, fusion=FusionFiles(dependence=curve)))
    assert tone(found, "dependence") == expected


def test_accepted_leaks_end_every_claim(tmp_path: Path) -> None:
    study = read_study(make_study(tmp_path / "leaks"))  # its audit holds a leak
    found = conclude(with_gain(study, 0.04, 0.01, 0.07))
    assert found.verdict.startswith("Nothing can be concluded: leaks")
    assert tone(found, "leaks") == "against"


def test_a_study_without_figures_concludes_nothing(built: StudyFiles) -> None:
    found = conclude(replace(built, metrics=built.metrics.iloc[:0]))
    assert found.verdict.startswith("Nothing can be concluded")


@pytest.mark.parametrize(
    ("p", "text"),
    [(0.0, "< .001"), (0.0004, "< .001"), (0.04, ".040"), (0.5, ".50"), (1.0, "1.00")],
)
def test_p_values_are_printed_as_journals_do(p: float, text: str) -> None:
    assert p_value(p) == text


def test_checklists_have_every_item_and_leave_persons_theirs(built: StudyFiles) -> None:
    tripod, points = tripod_ai(built), claim(built)
    numbers = {row.number.rstrip("abcdefg") for row in tripod}
    assert numbers == {str(n) for n in range(1, 28)}
    assert [row.number for row in points] == [str(n) for n in range(1, 45)]
    for item in ("1", "3a", "8b", "17", "18a", "25"):
        assert next(row for row in tripod if row.number == item).open
    assert "COVID-19" in next(row.text for row in tripod if row.number == "8a")
    assert not next(row for row in tripod if row.number == "23a").open


def test_what_no_file_says_is_open(built: StudyFiles) -> None:
    bare = replace(built, manifest=None, config=None, audit=None)
    rows = {row.number: row for row in tripod_ai(bare)}
    assert all(rows[number].open for number in ("5a", "10", "20a", "20b"))


def test_the_report_shows_conclusion_tests_and_checklists(tmp_path: Path) -> None:
    folder = make_study(tmp_path / "study")
    row = {"family": "fusion_vs_best", "metric": "roc_auc", "subset_a": FULL, "subset_b": "cxr"}
    row |= {"method_a": "log_odds", "method_b": "unimodal", "difference": 0.05, "low": 0.01}
    row |= {"high": 0.09, "test": "bootstrap", "p_value": 0.004, "p_holm": 0.0308}
    pd.DataFrame([row]).to_csv(folder / "comparisons.csv", index=False)
    page = write_report(folder).read_text(encoding="utf-8")
    assert 'id="conclusion"' in page
    assert "+0.050 [+0.010, +0.090]" in page
    assert ".031" in page
    assert "TRIPOD+AI" in page
    assert "CLAIM 2024" in page
    assert "## Conclusion" in (folder / "model_card.md").read_text(encoding="utf-8")
    assert (folder / "figures" / "grid.png").is_file()


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ((), "holds no fusion_controls.csv"),
        (("fusion_controls.csv", "rho_curve.csv", "shapley.csv"), "There are no Shapley shares"),
    ],
)
def test_what_a_fusion_was_not_controlled_by_is_said(
    tmp_path: Path, tables: tuple[str, ...], words: str
) -> None:
    folder = make_study(tmp_path)
    for name in tables:
        # As a study writes a table that holds no row.
        (folder / name).write_text("subset,method,metric,value\n", encoding="utf-8")
    assert words in write_report(folder).read_text(encoding="utf-8")


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "shapley.csv").write_bytes(b"\xff\xfe\x00bad")
    with pytest.raises(StudyError, match=r"shapley\.csv"):
        read_fusion(tmp_path)
