"""Predictions for a list of files: the study's figures, what is left out, and going on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from pulmofuse import batch
from pulmofuse.cli import app
from pulmofuse.errors import BundleError, ManifestError, PulmofuseError, StudyError
from pulmofuse.external import evaluate_external
from pulmofuse.files import read_json, write_json
from pulmofuse.inference import Predictor
from pulmofuse.schema import Modality, write_manifest
from tests.untrained import Untrained, make_untrained

#: Making a network ready for another runtime takes longer than these files take.
predict_batch = partial(batch.predict_batch, runtime="torch")


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Untrained:
    made = make_untrained(tmp_path_factory.mktemp("batch"))
    path = made.study / "bundle" / "bundle.json"
    write_json(path, {**read_json(path), "facts": {}})
    return made


def listed(manifest: pd.DataFrame, path: Path, **columns: Any) -> str:
    """A CSV list of files with nothing but what is needed."""
    manifest[["path", "modality", "patient_id"]].assign(**columns).to_csv(path, index=False)
    return str(path)


def two_files_each(manifest: pd.DataFrame) -> pd.DataFrame:
    """Two neighbouring patients of one class become one with two files of each modality."""
    patients = manifest[["patient_id", "label"]].drop_duplicates()
    number = patients.groupby("label").cumcount() // 2
    names = "synthetic:" + patients["label"] + number.astype(str)
    merged = dict(zip(patients["patient_id"], names, strict=True))
    return manifest.assign(patient_id=manifest["patient_id"].map(merged))


@pytest.mark.parametrize("method", ["log_odds", "concatenation"])
def test_patients_get_the_probabilities_of_an_evaluation_with_several_files_too(
    untrained: Untrained, tmp_path: Path, method: str
) -> None:
    manifest = two_files_each(untrained.manifest)
    write_manifest(tmp_path / "some.parquet", manifest)
    evaluate_external(
        untrained.study, str(tmp_path / "some.parquet"), untrained.data, tmp_path / "evaluated"
    )
    expected = pd.read_parquet(tmp_path / "evaluated" / "predictions.parquet")
    expected = expected[
        (expected["subset"] == "ct+cxr+cough") & (expected["method"] == method)
    ].set_index("patient_id")
    table = predict_batch(
        untrained.study / "bundle", listed(manifest, tmp_path / "list.csv"), untrained.data,
        tmp_path / "out", method=method, gate="off",
    ).set_index("patient_id")  # fmt: skip
    assert set(table.index) == set(expected.index)
    assert (table[["n_ct", "n_cxr", "n_cough"]] == 2).all(axis=1).any()
    assert np.allclose(table["p_covid19"], expected["p_covid19"][table.index], atol=1e-5)


def test_each_answer_is_that_of_predict(untrained: Untrained, tmp_path: Path) -> None:
    bundle = untrained.study / "bundle"
    predict_batch(
        bundle, listed(untrained.manifest, tmp_path / "list.csv"), untrained.data,
        tmp_path / "out", prevalence=0.1,
    )  # fmt: skip
    lines = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    own = untrained.manifest[untrained.manifest["patient_id"] == first["patient_id"]]
    files = {str(m): untrained.data / p for m, p in zip(own["modality"], own["path"], strict=True)}
    alone: Mapping[str, Any] = Predictor.load(bundle).predict(
        ct=files["ct"], cxr=files["cxr"], cough=files["cough"], prevalence=0.1
    ).to_dict()  # fmt: skip
    assert len(lines) == untrained.manifest["patient_id"].nunique()
    assert first["files"] == {"ct": 1, "cxr": 1, "cough": 1}
    for name, p in alone["probabilities"].items():
        assert first["probabilities"][name] == pytest.approx(p, abs=1e-5)
    assert first["predicted"] == alone["predicted"]
    assert first["threshold"] == alone["threshold"]


def test_what_cannot_be_used_is_listed_and_the_rest_predicted(
    untrained: Untrained, tmp_path: Path
) -> None:
    manifest = untrained.manifest[["path", "modality", "patient_id"]].copy()
    broken = pd.DataFrame(
        [
            ("nowhere.png", "ct", manifest["patient_id"].iloc[0]),
            (manifest.loc[manifest["modality"] == "cxr", "path"].iloc[0], "cough", "nobody"),
        ],
        columns=manifest.columns,
    )
    table = predict_batch(
        untrained.study / "bundle",
        listed(pd.concat([broken, manifest]), tmp_path / "list.csv"),
        untrained.data,
        tmp_path / "out",
    )
    excluded = pd.read_csv(tmp_path / "out" / "excluded.csv")
    assert set(excluded["path"]) == set(broken["path"])
    assert set(excluded["stage"]) == {"read"}
    assert excluded["remedy"].notna().all()
    assert "nobody" not in set(table["patient_id"])
    assert len(table) == manifest["patient_id"].nunique()


def test_a_stopped_run_goes_on_and_a_changed_file_is_read_again(
    untrained: Untrained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pulmofuse.batch._PART_PATIENTS", 2)
    data = tmp_path / "data"
    for path in untrained.manifest["path"]:
        (data / path).parent.mkdir(parents=True, exist_ok=True)
        (data / path).write_bytes((untrained.data / path).read_bytes())
    bundle, out = untrained.study / "bundle", tmp_path / "out"
    source = listed(untrained.manifest, tmp_path / "list.csv")
    whole = predict_batch(bundle, source, data, tmp_path / "whole")
    read: list[str] = []
    prepare = Predictor.prepare

    def stopping(self: Predictor, modality: Modality, path: Any, name: str | None = None) -> Any:
        if len(read) == 9:  # of 24 files
            raise KeyboardInterrupt
        read.append(str(path))
        return prepare(self, modality, path, name)

    monkeypatch.setattr(Predictor, "prepare", stopping)
    with pytest.raises(KeyboardInterrupt):
        predict_batch(bundle, source, data, out)
    first = set(read[:6])  # one whole part of two patients

    def noting(self: Predictor, modality: Modality, path: Any, name: str | None = None) -> Any:
        read.append(str(path))
        return prepare(self, modality, path, name)

    read.clear()
    monkeypatch.setattr(Predictor, "prepare", noting)
    table = predict_batch(bundle, source, data, out)
    assert len(read) == 18
    assert not first & set(read)
    pd.testing.assert_frame_equal(table, whole)

    read.clear()
    changed = data / untrained.manifest["path"].iloc[0]
    changed.write_bytes(changed.read_bytes() + b"\0")
    predict_batch(bundle, source, data, out)
    assert str(changed) in read
    assert len(read) == 6


@pytest.mark.parametrize(
    ("text", "error", "match"),
    [
        ("modality\nct\n", ManifestError, "column path is missing"),
        ("path,modality\na.png,mri\n", ManifestError, "modality in row 1"),
        ("path,modality\n../a.png,ct\n", ManifestError, "leaves the data root"),
        ("path,modality\nnowhere.png,ct\n", StudyError, "not one file could be used"),
    ],
)
def test_a_list_that_is_none_says_so(
    untrained: Untrained, tmp_path: Path, text: str, error: type[PulmofuseError], match: str
) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(error, match=match):
        predict_batch(
            untrained.study / "bundle", str(tmp_path / "list.csv"), untrained.data, tmp_path / "o"
        )


def test_settings_are_refused_before_a_file_is_read(untrained: Untrained, tmp_path: Path) -> None:
    source = listed(untrained.manifest, tmp_path / "list.csv")
    for wrong in ({"method": "magic"}, {"prevalence": 2.0}):
        with pytest.raises(BundleError):
            predict_batch(
                untrained.study / "bundle", source, untrained.data, tmp_path / "out", **wrong
            )
    assert not (tmp_path / "out" / "parts").exists()


def test_the_command_says_what_it_left_out_and_where_the_table_is(
    untrained: Untrained, tmp_path: Path
) -> None:
    manifest = untrained.manifest.copy()
    manifest["path"] = ["nowhere.png", *manifest["path"].iloc[1:]]
    done = CliRunner().invoke(
        app,
        ["predict-batch", str(untrained.study / "bundle"), listed(manifest, tmp_path / "l.csv"),
         "--data-root", str(untrained.data), "--out", str(tmp_path / "out")],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "1 files left out" in done.output
    assert "Research use only" in done.output
    assert done.output.strip().endswith("predictions.csv")
