"""Whom a label file counts, and the command that asks it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from pulmofuse.cli import app
from pulmofuse.config import Target, dump_config, parse_config
from pulmofuse.errors import SourceError, StudyError
from pulmofuse.files import read_json, write_json, write_text
from pulmofuse.pipeline import read_frame, study_power
from pulmofuse.schema import manifest_frame, write_manifest
from tests.evaluation.test_power import gain_rows, predictions
from tests.sources.test_coswara import coughs, tree

CONFIG = """
name: planned
question: Is it worth it?
target: {classes: [well, ill], positive: ill, mapping: {normal: well, covid19: ill}}
sources: [{name: synthetic}]
"""
COSWARA = (
    "p1,28,healthy,2020-04-23,male,India,Karnataka,,,,n,n",
    "p2,31,positive_mild,2020-05-02,female,Germany,Berlin,,,,y,n",
    "p3,40,recovered_full,2020-05-02,female,India,Goa,,,,y,n",
    "p4,41,healthy,2020-05-02,female,India,Goa,,,,y,n",
    "p4,41,healthy,2020-05-02,female,India,Goa,,,,y,n",
    "p5,42,healthy,2020-05-02,female,India,Goa,True,,,y,n",
)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """What a finished study leaves for the power statement."""
    folder = tmp_path / "study"
    table = predictions()
    write_text(folder / "config.resolved.yaml", dump_config(parse_config(CONFIG)))
    write_json(folder / "metrics.json", gain_rows(table))
    table.to_parquet(folder / "predictions.parquet")
    return folder


def target() -> Target:
    return parse_config(CONFIG).target


def test_a_label_file_counts_people_without_any_recording(tmp_path: Path) -> None:
    frame = read_frame(tree(tmp_path, *COSWARA) / "combined_data.csv", target())
    # p3 has no label, and p5's asthma is outside this study's mapping.
    assert (frame.people, frame.positive, frame.negative) == (5, 1, 2)
    assert frame.reported_ct == 2
    assert frame.recorded == {}


def test_recordings_beside_the_label_file_are_counted(tmp_path: Path) -> None:
    root = coughs(tree(tmp_path, *COSWARA), "20200501", "p1", "p3", "p4")
    assert read_frame(root / "combined_data.csv", target()).recorded == {"cough": 2}


def test_a_manifest_counts_patients_and_not_files(tmp_path: Path) -> None:
    rows = [
        {
            "record_id": f"mine:{n}",
            "patient_id": f"mine:{patient}",
            "patient_known": True,
            "modality": modality,
            "path": f"{n}.png",
            "label": label,
            "source": "mine",
        }
        for n, (patient, modality, label) in enumerate(
            [
                ("a", "ct", "covid19"),
                ("a", "cxr", "normal"),
                ("b", "cxr", "normal"),
                ("b", "cxr", "normal"),
                ("c", "ct", "pneumonia"),
            ]
        )
    ]
    write_manifest(tmp_path / "m.parquet", manifest_frame(rows))
    frame = read_frame(tmp_path / "m.parquet", target())
    assert (frame.name, frame.people, frame.positive, frame.negative) == ("mine", 3, 1, 1)
    assert frame.recorded == {"ct": 1, "cxr": 2}


def test_a_frame_of_one_class_is_refused(tmp_path: Path) -> None:
    root = tree(tmp_path, *(row for row in COSWARA if "positive" not in row))
    with pytest.raises(StudyError, match="nobody in it is positive"):
        read_frame(root / "combined_data.csv", target())


def test_the_command_prints_and_writes_the_statement(study: Path, tmp_path: Path) -> None:
    root = tree(tmp_path / "coswara", *COSWARA)
    words = ["power", str(study), "--frame", str(root / "combined_data.csv")]
    done = CliRunner().invoke(app, words, catch_exceptions=False, env={"COLUMNS": "200"})
    assert done.exit_code == 0
    written = read_json(study / "power.json")
    assert written["sentence"] in done.output
    assert written["frame"]["usable"] == 3
    assert "33.3%" in done.output


@pytest.mark.parametrize("name", ["predictions.parquet", "metrics.json", "config.resolved.yaml"])
def test_a_study_that_did_not_end_is_refused(study: Path, name: str) -> None:
    (study / name).unlink()
    with pytest.raises(StudyError, match=f"has no {name}"):
        study_power(study, None)


def test_a_study_without_a_positive_class_is_refused(study: Path) -> None:
    three = CONFIG.replace("well, ill], positive: ill", "well, ill, worse], positive: null")
    three = three.replace("covid19: ill", "covid19: ill, pneumonia: worse")
    write_text(study / "config.resolved.yaml", dump_config(parse_config(three)))
    with pytest.raises(StudyError, match="no positive class"):
        study_power(study, None)


@pytest.mark.parametrize("name", ["combined_data.csv", "manifest.parquet"])
def test_a_frame_that_is_not_there_is_an_error_of_the_user(
    study: Path, tmp_path: Path, name: str
) -> None:
    done = CliRunner().invoke(app, ["power", str(study), "--frame", str(tmp_path / name)])
    assert done.exit_code != 0
    assert name in str(done.exception)


def test_another_table_of_that_name_is_refused(tmp_path: Path) -> None:
    pd.DataFrame({"id": ["1"]}).to_csv(tmp_path / "combined_data.csv", index=False)
    with pytest.raises(SourceError, match="covid_status"):
        read_frame(tmp_path / "combined_data.csv", target())


@pytest.mark.data
def test_the_published_label_file(data_root: Path, tmp_path: Path) -> None:
    shutil.copy(data_root / "metadata" / "coswara" / "combined_data.csv", tmp_path)
    config = CONFIG.partition("target:")[0] + "sources: [{name: synthetic}]"
    frame = read_frame(tmp_path / "combined_data.csv", parse_config(config).target)
    # Counted with awk over the columns covid_status and ctScan.
    assert (frame.people, frame.positive, frame.negative) == (2746, 681, 1838)
    assert frame.recorded == {}
    assert frame.reported_ct == 125
