"""The conclusion says what the figures say; the checklists leave open what no file knows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pulmofuse.errors import StudyError
from pulmofuse.evaluation.power_statement import power_statement
from pulmofuse.report.checklists import claim, tripod_ai
from pulmofuse.report.conclusion import Conclusion, conclude, p_value
from pulmofuse.report.fusion_files import FusionFiles, read_fusion
from pulmofuse.report.results import headline
from pulmofuse.report.study_files import Check, StudyFiles, read_study
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


def control(
    name: str,
    value: float,
    against: float = 0.95,
    half_width: float = 0.05,
    metric: str = "roc_auc",
) -> pd.DataFrame:
    row = {"control": name, "subset": FULL, "method": "log_odds", "metric": metric}
    row |= {"value": value, "low": value - half_width, "high": value + half_width}
    return pd.DataFrame([{**row, "against": against}])


def curve(*values: float, best: float = 0.9) -> pd.DataFrame:
    """AUC of the fusion at rho 0, .3 and .9, and of the best modality on the same patients."""
    rows = pd.DataFrame({"rho": [0.0, 0.3, 0.9], "value": values, "low": np.nan, "high": np.nan})
    rows = rows.assign(subset=FULL, metric="roc_auc", weight_rule="one")
    return rows.assign(best_modality="cxr", best_value=best)


def confounded(study: StudyFiles, *modalities: str, id: str = "confounding.traits") -> StudyFiles:  # noqa: A002
    """The study with an audit that tells the label from what is no content, AUC .98."""
    assert study.audit is not None
    checks = tuple(
        Check(id, "fail", 0.98, 0.96, 1.0, "It is told.", "mend it", modality)
        for modality in modalities
    )
    return replace(study, audit=replace(study.audit, verdict="fail", checks=checks))


def text(found: Conclusion, rule: str) -> str:
    return next(s.text for s in found.statements if s.rule == rule)


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


@pytest.mark.parametrize(
    ("at_moderate", "best", "expected"),
    [(0.99, 0.90, "note"), (0.85, 0.90, "against"), (0.85, 0.80, "note"), (0.85, np.nan, "note")],
)
def test_dependence_is_weighed_at_a_moderate_correlation_on_the_patients_of_the_curve(
    built: StudyFiles, at_moderate: float, best: float, expected: str
) -> None:
    files = FusionFiles(dependence=curve(0.99, at_moderate, 0.55, best=best))
    found = conclude(replace(built, fusion=files))
    assert tone(found, "dependence") == expected
    assert ("alone on the same patients" in text(found, "dependence")) == np.isfinite(best)


@pytest.mark.parametrize(
    ("rho", "half_width", "expected", "said"),
    [
        # Nothing that the pairs leave possible loses the gain.
        (-0.3, 0.1, "note", "correlate by −0.30 [−0.40, −0.20]"),
        # The pairs leave a moderate correlation possible, and there the gain is lost.
        (0.1, 0.5, "against", "correlate by 0.10 [−0.40, 0.60]"),
        (0.8, 0.1, "against", "correlate by 0.80 [0.70, 0.90]"),
        # A value without an interval is quoted and trusted for nothing.
        (-0.3, np.nan, "against", "correlate by −0.30."),
        (np.nan, np.nan, "against", "too few to say"),
    ],
)
def test_a_measured_dependence_is_quoted_and_heeded(
    built: StudyFiles, rho: float, half_width: float, expected: str, said: str
) -> None:
    controls = control("dependence", rho, half_width=half_width, metric="rho")
    files = FusionFiles(controls=controls, dependence=curve(0.95, 0.85, 0.55))
    found = conclude(replace(built, fusion=files))
    assert tone(found, "dependence") == expected
    assert said in text(found, "dependence")
    assert "data cannot say" not in text(found, "dependence")


def test_without_a_measured_dependence_the_data_cannot_say(built: StudyFiles) -> None:
    found = conclude(replace(built, fusion=FusionFiles(dependence=curve(0.99, 0.98, 0.97))))
    assert "data cannot say how much they correlate" in text(found, "dependence")


def test_a_curve_without_values_says_nothing(built: StudyFiles) -> None:
    files = FusionFiles(dependence=curve(np.nan, np.nan, np.nan))
    found = conclude(replace(built, fusion=files))
    assert all(s.rule != "dependence" for s in found.statements)


def test_where_traits_have_no_model_the_audit_has_the_word(built: StudyFiles) -> None:
    study = confounded(with_gain(built, 0.04, 0.01, 0.07), "ct", "cxr", "cough")
    empty = control("confounders_only", np.nan)
    found = conclude(replace(study, fusion=FusionFiles(controls=empty)))
    assert "no evidence that disease was recognised" in found.verdict
    assert tone(found, "shortcuts") == "against"
    assert all(s.rule != "confounders_only" for s in found.statements)


def test_a_model_of_traits_clears_traits_and_no_site(built: StudyFiles) -> None:
    study = with_gain(built, 0.04, 0.01, 0.07)
    far = FusionFiles(controls=control("confounders_only", 0.52))
    by_traits = conclude(replace(confounded(study, "ct", "cxr", "cough"), fusion=far))
    assert all(s.rule != "shortcuts" for s in by_traits.statements)
    by_site = confounded(study, "ct", "cxr", "cough", id="confounding.source")
    found = conclude(replace(by_site, fusion=far))
    assert tone(found, "shortcuts") == "against"
    assert "CXR by source alone 0.98" in text(found, "shortcuts")
    assert "no evidence" in found.verdict


def test_one_modality_with_a_shortcut_is_a_note(built: StudyFiles) -> None:
    found = conclude(confounded(built, "cxr"))
    assert tone(found, "shortcuts") == "note"
    assert "cough" not in text(found, "shortcuts")


def test_counts_of_the_audit_are_no_auc(built: StudyFiles) -> None:
    study = confounded(built, "ct", "cxr", "cough")
    assert study.audit is not None
    weak = tuple(replace(check, value=0.55) for check in study.audit.checks)
    counts = tuple(replace(check, id="support", value=41.0) for check in study.audit.checks)
    study = replace(study, audit=replace(study.audit, checks=weak + counts))
    assert all(s.rule != "shortcuts" for s in conclude(study).statements)


@pytest.mark.parametrize("half_width", [0.6, np.nan])
def test_confounders_of_a_wide_interval_clear_nothing(built: StudyFiles, half_width: float) -> None:
    controls = control("confounders_only", 0.52, half_width=half_width)
    found = conclude(replace(built, fusion=FusionFiles(controls=controls)))
    assert tone(found, "confounders_only") == "note"
    assert "Too little is known" in text(found, "confounders_only")


def test_a_noise_control_without_a_value_says_nothing(built: StudyFiles) -> None:
    files = FusionFiles(controls=control("noise_modality", np.nan))
    found = conclude(replace(built, fusion=files))
    assert all(s.rule != "noise" for s in found.statements)
    assert all("nan" not in s.text for s in found.statements)


def made(*rows: tuple[str, str, float, float, float]) -> pd.DataFrame:
    """Rows of `controls.csv` by the model."""
    columns = ["modality", "control", "value", "low", "high"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.assign(method="model", metric="roc_auc", n_patients=100, detail="")


def test_models_that_need_no_lungs_end_every_claim(built: StudyFiles) -> None:
    study = with_gain(built, 0.04, 0.01, 0.07)
    seen = [(m, "none", 0.90, 0.85, 0.95) for m in ("ct", "cxr", "cough")]
    blind = [("ct", "lungs_blanked"), ("cxr", "border_only"), ("cough", "between_coughs")]
    left = [(m, what, 0.89, 0.83, 0.94) for m, what in blind]
    found = conclude(replace(study, controls=made(*seen, *left)))
    assert tone(found, "content") == "against"
    assert "CXR 0.89 instead of 0.90 (borders only, the model)" in text(found, "content")
    assert "no evidence that disease was recognised" in found.verdict
    found = conclude(replace(study, controls=made(*seen, left[0])))
    assert tone(found, "content") == "note"
    assert "no evidence" not in found.verdict
    for value, low in ((0.70, 0.60), (0.88, 0.45), (np.nan, np.nan)):
        gone = ("ct", "lungs_blanked", value, low, 0.95)
        found = conclude(replace(study, controls=made(*seen, gone)))
        assert all(s.rule != "content" for s in found.statements)


def test_what_matching_takes_away_is_said(built: StudyFiles) -> None:
    rows = [("cough", "matched on site", 0.49, 0.42, 0.55), ("ct", "matched on", np.nan, 0, 0)]
    rows.append(("cxr", "matched on age", 0.80, 0.70, 0.88))
    found = conclude(replace(built, controls=made(*rows)))
    assert tone(found, "matched") == "note"
    assert "cough matched on site 0.49 [0.42, 0.55]. That may be chance" in text(found, "matched")
    assert "CXR" not in text(found, "matched")


def test_power_statement_and_conclusion_speak_of_one_claim(tmp_path: Path) -> None:
    study = read_study(make_study(tmp_path / "study"))
    gains = study.metrics[study.metrics["metric"] == "roc_auc_difference"].to_dict("records")
    # The rule that did best is another one.
    best = [{**row, "value": 0.4 if row["method"] == "mean" else 0.01} for row in gains]
    found = power_statement(study.predictions, best, "covid19", None)
    claim, fused = found["claim"], headline(study).fused
    assert fused is not None
    assert (claim["subset"], claim["method"]) == (fused.subset, fused.method)


def test_a_fusion_by_a_rule_that_nobody_named_is_no_single_modality(built: StudyFiles) -> None:
    metrics = built.metrics[~built.metrics["subset"].str.contains("+", regex=False)]
    found = conclude(replace(built, metrics=metrics, controls=None))
    assert found.verdict == "No fusion was tested by a rule that was named beforehand."


def test_true_pairs_that_were_not_used_are_not_denied(built: StudyFiles) -> None:
    assert "No patient here has more than one" in text(conclude(built), "pairing")
    assert built.manifest is not None
    some = built.manifest.copy()
    rows = [some.index[some["modality"] == m][0] for m in ("ct", "cxr")]
    some.loc[rows, "patient_id"] = "covid-ct:both"
    found = conclude(replace(built, manifest=some))
    assert "Only 1 patient has more than one modality." in text(found, "pairing")


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
