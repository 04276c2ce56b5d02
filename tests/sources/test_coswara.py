"""Coswara: status, ticks, days, sites, and what is missing."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

from pulmofuse.errors import SourceError
from pulmofuse.sources import scan_source
from tests.sources.trees import touch

HEADER = "id,a,covid_status,record_date,g,l_c,l_s,asthma,cld,pneumonia,ctScan,rU"


def tree(root: Path, *rows: str, header: str = HEADER) -> Path:
    """Coswara with the table rows given and no recording."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "combined_data.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return root


def coughs(root: Path, day: str, *people: str) -> Path:
    """Both coughs, a breath and the answers of each person, as the archives hold them."""
    names = ("cough-heavy.wav", "cough-shallow.wav", "breathing-deep.wav", "metadata.json")
    return touch(root, *(f"{day}/{who}/{name}" for who in people for name in names))


@pytest.mark.parametrize(
    ("status", "asthma", "cld", "label"),
    [
        ("positive_mild", "", "", "covid19"),
        ("positive_moderate", "True", "", "covid19"),
        ("positive_asymp", "", "", "covid19"),
        ("healthy", "", "", "normal"),
        ("healthy", "False", "", "normal"),
        ("healthy", "True", "", "chronic_lung_disease"),
        ("no_resp_illness_exposed", "", "", "normal"),
        ("no_resp_illness_exposed", "", "True", "chronic_lung_disease"),
        ("resp_illness_not_identified", "", "", "other_abnormal"),
        ("resp_illness_not_identified", "True", "True", "chronic_lung_disease"),
        ("recovered_full", "", "", "unknown"),
        ("under_validation", "True", "", "unknown"),
    ],
)
def test_labels(tmp_path: Path, status: str, asthma: str, cld: str, label: str) -> None:
    row = f"p1,28,{status},2020-04-23,male,India,Karnataka,{asthma},{cld},True,n,n"
    scan = scan_source("coswara", coughs(tree(tmp_path, row), "20200501", "p1"))
    assert scan.records["label"].tolist() == [label, label]


def test_the_two_coughs_of_a_person_and_what_is_known_of_them(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        "p1,28,healthy,2020-04-23,male,India,Karnataka,,,,,n",
        "p2,31,positive_mild,2020-05-02,female,Germany,Berlin,,,,y,n",
        "p3,,healthy,soon,other,India,,,,,,n",
    )
    coughs(root / "Extracted_data", "20200501", "p1", "p2")
    coughs(root, "20200502", "p3")
    rows = scan_source("coswara", tmp_path).records.set_index("record_id")
    assert sorted(rows.index) == [
        f"coswara:{who}/{cough}"
        for who in ("p1", "p2", "p3")
        for cough in ("cough-heavy", "cough-shallow")
    ]
    assert rows.loc["coswara:p1/cough-heavy", "path"] == (
        "Extracted_data/20200501/p1/cough-heavy.wav"
    )
    columns = ["patient_id", "patient_known", "site", "age", "sex", "date", "modality"]
    assert rows.loc["coswara:p1/cough-shallow", columns].tolist() == [
        "coswara:p1", True, "Karnataka", 28.0, "M", "2020-04-23", "cough",
    ]  # fmt: skip
    assert rows.loc["coswara:p2/cough-heavy", ["site", "sex"]].tolist() == ["Germany", "F"]
    third = rows.loc["coswara:p3/cough-heavy"]
    assert third["site"] == "India"
    assert third[["age", "date"]].isna().all()


def test_what_is_left_out_says_which_archive_holds_it(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        "p1,28,healthy,2020-04-23,male,India,Karnataka,,,,,n",
        "p2,28,healthy,2020-04-23,male,India,Karnataka,,,,,n",
        "p3,28,healthy,2020-04-23,male,India,Karnataka,,,,,n",
        "p4,28,not asked,2020-04-23,male,India,Karnataka,,,,,n",
        "p1,28,positive_mild,2020-04-23,male,India,Karnataka,,,,,n",
    )
    coughs(root, "20200501", "p1", "stranger")
    coughs(root, "20200502", "p1")
    (root / "20200501" / "p1" / "cough-shallow.wav").unlink()
    (root / "20200502" / "p1" / "cough-shallow.wav").unlink()
    (root / "20200413").mkdir()
    (root / "20200413" / "20200413.csv").write_text("id,a\np2,28\n", encoding="utf-8")
    touch(root, "20200413/20200413.tar.gz.aa", "README.md")
    scan = scan_source("coswara", tmp_path)
    assert scan.records["path"].tolist() == ["20200501/p1/cough-heavy.wav"]
    found = {e.path: e for e in scan.excluded}
    assert set(found) == {
        ".",
        "p1",
        "p4",
        "p1/cough-shallow.wav",
        "20200413/p2/cough-heavy.wav",
        "20200413/p2/cough-shallow.wav",
        "p3/cough-heavy.wav",
        "p3/cough-shallow.wav",
        "20200501/stranger/cough-heavy.wav",
        "20200501/stranger/cough-shallow.wav",
        "20200502/p1/cough-heavy.wav",
    }
    assert found["."].reason.startswith("3 recordings of breathing")
    assert "cat 20200413/*.tar.gz.*" in found["20200413/p2/cough-heavy.wav"].remedy
    assert "cat YYYYMMDD/*.tar.gz.*" in found["p3/cough-heavy.wav"].remedy
    assert "the same recording" in found["20200502/p1/cough-heavy.wav"].reason
    assert "does not name this person" in found["20200501/stranger/cough-heavy.wav"].reason
    assert "'not asked' has no label" in found["p4"].reason


def test_a_missing_or_foreign_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"combined_data\.csv: the file is missing.*extract_data"):
        scan_source("coswara", tmp_path)
    with pytest.raises(SourceError, match="column covid_status is missing"):
        scan_source("coswara", tree(tmp_path, header=HEADER.replace("covid_status", "status")))


@pytest.mark.data
def test_the_published_table(data_root: Path, tmp_path: Path) -> None:
    """Counts of the real table, taken with the csv module."""
    text = (data_root / "metadata" / "coswara" / "combined_data.csv").read_bytes()
    (tmp_path / "combined_data.csv").write_bytes(text)
    with (tmp_path / "combined_data.csv").open(encoding="utf-8-sig", newline="") as stream:
        people = list(csv.DictReader(stream))
    assert len(people) == 2746
    coughs(tmp_path, "20200413", *(person["id"] for person in people))
    scan = scan_source("coswara", tmp_path)
    assert [e.path for e in scan.excluded] == ["."]
    status = Counter(person["covid_status"] for person in people)
    labels = scan.records.drop_duplicates("patient_id")["label"].value_counts()
    assert len(scan.records) == 2 * 2746
    assert labels["covid19"] == sum(n for s, n in status.items() if s.startswith("positive")) == 681
    assert labels["unknown"] == status["recovered_full"] + status["under_validation"] == 227
    assert labels[["normal", "chronic_lung_disease", "other_abnormal"]].tolist() == [1655, 120, 63]
    assert scan.records["date"].min() == min(person["record_date"] for person in people)
    assert scan.records["date"].notna().all()
    assert scan.records["sex"].value_counts().to_dict() == {"M": 3800, "F": 1688, "O": 4}
    abroad = {person["l_c"] for person in people} - {"India"}
    by_person = scan.records.drop_duplicates("patient_id")
    assert by_person["site"].isin(abroad).sum() == 231
