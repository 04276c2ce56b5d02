"""External evaluation with a bundle of untrained models: what is left out, joined and written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pulmofuse.config import CtConfig, parse_config
from pulmofuse.console import print_comparison
from pulmofuse.errors import SourceError, StudyError
from pulmofuse.external import _bundle_config, evaluate_external
from pulmofuse.files import read_json, sha256_file, write_json, write_text
from pulmofuse.fusion import RULES
from pulmofuse.models import FUSIONS
from pulmofuse.schema import Modality, subset_name, write_manifest
from tests.untrained import CONFIG, SUBSETS, Untrained, make_untrained


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Untrained:
    return make_untrained(tmp_path_factory.mktemp("external"))


@pytest.fixture
def evaluated(
    untrained: Untrained, tmp_path: Path
) -> Callable[[pd.DataFrame], tuple[pd.DataFrame, pd.DataFrame]]:
    """Evaluate a manifest: the comparison table and the predictions."""

    def run(manifest: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
        write_manifest(tmp_path / "some.parquet", manifest)
        path, out = str(tmp_path / "some.parquet"), tmp_path / "out"
        table = evaluate_external(untrained.study, path, untrained.data, out)
        return table, pd.read_parquet(out / "predictions.parquet")

    return run


def _with_facts(untrained: Untrained, **facts: object) -> None:
    path = untrained.study / "bundle" / "bundle.json"
    write_json(path, {**read_json(path), "facts": facts})


@pytest.fixture(autouse=True)
def _older_bundle(untrained: Untrained) -> None:
    _with_facts(untrained)


def test_true_patients_are_joined_over_every_subset(
    untrained: Untrained, evaluated: Callable[..., tuple[pd.DataFrame, pd.DataFrame]]
) -> None:
    _, predictions = evaluated(untrained.manifest)
    assert set(predictions["subset"]) == set(SUBSETS)
    assert set(predictions["split"]) == {"test"}
    assert not predictions["simulated"].any()
    whole = predictions[predictions["subset"] == "ct+cxr+cough"]
    assert set(whole["method"]) == {*RULES, *FUSIONS}


@pytest.mark.parametrize("absent", list(Modality))
def test_two_of_three_modalities_are_joined_as_if_the_third_were_missing_for_each_patient(
    untrained: Untrained,
    evaluated: Callable[..., tuple[pd.DataFrame, pd.DataFrame]],
    absent: Modality,
) -> None:
    _, whole = evaluated(untrained.manifest)
    rest = untrained.manifest[untrained.manifest["modality"] != absent.value]
    _, predictions = evaluated(rest)
    pair = subset_name(m for m in Modality if m is not absent)
    assert set(predictions["subset"]) == {*pair.split("+"), pair}
    both = predictions.merge(whole, on=["record_id", "subset", "method"])
    assert len(both) == len(predictions)
    assert np.allclose(both["p_covid19_x"], both["p_covid19_y"], atol=1e-6)


def _one_modality_each(manifest: pd.DataFrame) -> pd.DataFrame:
    """Nobody has two modalities."""
    patients = {p: i for i, p in enumerate(sorted(manifest["patient_id"].unique()))}
    kept = ["ct" if patients[p] % 4 < 2 else "cough" for p in manifest["patient_id"]]
    return manifest[manifest["modality"] == kept]


@pytest.mark.parametrize(
    ("how", "methods"),
    [("simulated", {"per_record"}), ("auto", {"per_record", "unimodal"})],
)
def test_nobody_is_simulated_where_nobody_has_two_modalities(
    untrained: Untrained,
    evaluated: Callable[..., tuple[pd.DataFrame, pd.DataFrame]],
    how: str,
    methods: set[str],
) -> None:
    path = untrained.study / "config.resolved.yaml"
    before = path.read_text()
    write_text(path, before.replace("patients: auto", f"patients: {how}"))
    try:
        _, predictions = evaluated(_one_modality_each(untrained.manifest))
    finally:
        write_text(path, before)
    assert set(predictions["subset"]) == {"ct", "cough"}
    assert set(predictions["method"]) == methods
    assert not predictions["simulated"].any()


def test_one_class_alone_has_no_auc_and_still_a_table(
    untrained: Untrained,
    evaluated: Callable[..., tuple[pd.DataFrame, pd.DataFrame]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    table, _ = evaluated(untrained.manifest[untrained.manifest["label"] == "covid19"])
    assert table["roc_auc"].isna().all()
    assert table["accuracy"].notna().all()
    print_comparison(table)
    assert "–" in capsys.readouterr().out


def test_files_and_patients_of_the_training_are_left_out_and_named(
    untrained: Untrained,
    evaluated: Callable[..., tuple[pd.DataFrame, pd.DataFrame]],
    tmp_path: Path,
) -> None:
    patients = sorted(untrained.manifest["patient_id"].unique())
    of_other = untrained.manifest[untrained.manifest["patient_id"] == patients[1]]
    path = of_other["path"].iloc[0]
    _with_facts(
        untrained,
        training_files=[sha256_file(untrained.data / path)],
        training_patients=[patients[0]],
    )
    _, predictions = evaluated(untrained.manifest)
    assert patients[0] not in set(predictions["patient_id"])
    assert patients[1] not in set(predictions["patient_id"]), "the file says who was trained on"
    excluded = pd.read_csv(tmp_path / "out" / "excluded.csv").set_index("path")
    assert set(excluded["stage"]) == {"audit"}
    assert excluded["reason"][path] == "the study trained on this file"
    same_patient = untrained.manifest[untrained.manifest["patient_id"].isin(patients[:2])]
    same_patient = same_patient[same_patient["path"] != path]
    assert set(excluded.index) == {path, *same_patient["path"]}
    assert set(excluded.drop(path)["reason"]) == {"the study trained on this patient"}


def test_nothing_but_training_data_is_an_error(
    untrained: Untrained, evaluated: Callable[..., tuple[pd.DataFrame, pd.DataFrame]]
) -> None:
    everyone = sorted(untrained.manifest["patient_id"].unique())
    _with_facts(untrained, training_patients=everyone)
    with pytest.raises(StudyError, match="trained on every one"):
        evaluated(untrained.manifest)


def test_preprocessing_and_classes_are_those_of_the_bundle(untrained: Untrained) -> None:
    strange = untrained.config.model_copy(update={"ct": CtConfig()})
    merged = _bundle_config(strange, untrained.bundle)
    assert merged.ct.preprocessing.size == 32
    assert merged.target == untrained.config.target


def test_a_mapping_to_other_classes_is_refused(untrained: Untrained) -> None:
    text = CONFIG.replace("covid19]", "ill]").replace("positive: covid19", "positive: ill")
    other = parse_config(text.replace("covid19: covid19", "covid19: ill"))
    with pytest.raises(StudyError, match=r"target\.mapping does not fit"):
        _bundle_config(other, untrained.bundle)


def test_data_without_a_source_name_are_refused(untrained: Untrained, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="SOURCE:ROOT"):
        evaluate_external(untrained.study, ":foo", untrained.data, tmp_path)


def _pairs(tmp_path: Path) -> tuple[pd.DataFrame, dict[str, object]]:
    """pairs.csv by patient, and pairs.json."""
    table = pd.read_csv(tmp_path / "out" / "pairs.csv", keep_default_na=False)
    return table.set_index("patient_id"), read_json(tmp_path / "out" / "pairs.json")


def test_every_true_pair_is_shown_with_what_every_method_says(
    untrained: Untrained,
    evaluated: Callable[..., tuple[pd.DataFrame, pd.DataFrame]],
    tmp_path: Path,
) -> None:
    two = untrained.manifest[untrained.manifest["modality"] != "cough"]
    alone = sorted(two["patient_id"].unique())[0]
    manifest = two[(two["patient_id"] != alone) | (two["modality"] == "ct")]
    days = {"ct": 9.0, "cxr": 3.0}
    manifest = manifest.assign(day=manifest["modality"].map(days), date="2020")
    _, predictions = evaluated(manifest)
    table, told = _pairs(tmp_path)
    assert set(table.index) == set(manifest["patient_id"]) - {alone}
    assert set(table["modalities"]) == {"ct+cxr"}
    assert set(table["days"].astype(float)) == {6.0}
    assert set(table["days_from"]) == {"day"}
    assert set(table["seen_by"]) == {""}
    for row in predictions[predictions["patient_id"] != alone].itertuples():
        if row.method != "per_record":
            name = f"p_{row.subset}" + ("" if row.method == "unimodal" else f"_{row.method}")
            assert float(table.loc[row.patient_id, name]) == pytest.approx(row.p_covid19)
    recall = pd.DataFrame(told["recall"])
    rows = predictions[predictions["patient_id"] != alone]
    for row in recall[recall["pairs"] == "all"].itertuples():
        own = rows[
            (rows["subset"] == row.subset)
            & (rows["method"] == row.method)
            & (rows["y_true"] == row.y_true)
        ]
        assert row.value == (own["y_pred"] == own["y_true"]).mean()
    assert told["n"] == told["n_unseen"] == 7


def test_pairs_that_the_study_knows_are_shown_and_say_so_and_are_in_no_other_figure(
    untrained: Untrained,
    evaluated: Callable[..., tuple[pd.DataFrame, pd.DataFrame]],
    tmp_path: Path,
) -> None:
    manifest = untrained.manifest[untrained.manifest["modality"] != "cough"]
    first, second, *rest = sorted(manifest["patient_id"].unique())
    own = manifest[(manifest["patient_id"] == second) & (manifest["modality"] == "cxr")]
    files = [sha256_file(untrained.data / path) for path in own["path"]]
    _with_facts(untrained, training_files=files, training_patients=[first])
    _, predictions = evaluated(manifest)
    assert set(predictions["patient_id"]) == set(rest)
    table, told = _pairs(tmp_path)
    assert table["seen_by"].to_dict() == {first: "patient", second: "cxr"} | dict.fromkeys(rest, "")
    assert told["n_unseen"] == len(rest)
    assert "trained on parts of the others" in str(told["remark"])


def test_pairs_of_one_class_have_no_auc_and_the_remark_says_so(
    untrained: Untrained,
    evaluated: Callable[..., tuple[pd.DataFrame, pd.DataFrame]],
    tmp_path: Path,
) -> None:
    evaluated(untrained.manifest.assign(label="covid19"))
    table, told = _pairs(tmp_path)
    assert told["classes"] == {"covid19": len(table)}
    assert "there is no AUC" in str(told["remark"])


def test_a_patient_who_is_no_pair_is_named_with_the_reason(
    untrained: Untrained,
    evaluated: Callable[..., tuple[pd.DataFrame, pd.DataFrame]],
    tmp_path: Path,
) -> None:
    manifest = untrained.manifest[untrained.manifest["modality"] != "cough"].copy()
    first, second, *_ = sorted(manifest["patient_id"].unique())
    xray = manifest["modality"] == "cxr"
    manifest.loc[xray & (manifest["patient_id"] == first), "label"] = "unknown"
    other = {"normal": "covid19", "covid19": "normal"}
    ill = xray & (manifest["patient_id"] == second)
    manifest.loc[ill, "label"] = manifest.loc[ill, "label"].map(other)
    evaluated(manifest)
    table, told = _pairs(tmp_path)
    assert not {first, second} & set(table.index)
    reasons = {row["patient_id"]: row["reason"] for row in told["left_out"]}  # type: ignore[attr-defined]
    assert "cxr: label 'unknown'" in reasons[first]
    assert reasons[second] == "its recordings carry different classes"


def test_nothing_is_left_of_pairs_where_nobody_is_one(
    untrained: Untrained,
    evaluated: Callable[..., tuple[pd.DataFrame, pd.DataFrame]],
    tmp_path: Path,
) -> None:
    evaluated(untrained.manifest)
    assert (tmp_path / "out" / "pairs.csv").is_file()
    evaluated(_one_modality_each(untrained.manifest))
    assert not list((tmp_path / "out").glob("pairs.*"))
