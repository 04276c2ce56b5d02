"""What `scan_source` promises of every source."""

from __future__ import annotations

from pathlib import Path

import pytest

from pulmofuse.errors import SourceError
from pulmofuse.schema import MANIFEST_COLUMNS, check_manifest
from pulmofuse.sources import SOURCES, scan_source
from tests.sources.trees import cough_tree, covid_ct_tree, touch


def test_every_source_is_found_under_its_own_name_and_describes_itself() -> None:
    for name, source in SOURCES.items():
        assert source.name == name
        assert source.title
        assert source.obtain
        assert source.licence
        assert source.modalities
        assert source.labels


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_size_and_licence_fit_a_cell_of_data_list(name: str) -> None:
    assert 0 < len(SOURCES[name].size) <= 40
    assert 0 < len(SOURCES[name].licence) <= 40


def test_every_data_sheet_names_its_parts() -> None:
    for source in SOURCES.values():
        sheet = __import__(source.scan.__module__, fromlist=["x"]).__doc__
        for part in ("Origin:", "Licence:", "Layout", "Labels", "Known defects:", "How to obtain:"):
            assert part in sheet, f"{source.name}: {part}"


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("covidct", "covid_ct"),
        ("Dark-CovidNet", "darkcovidnet"),
        ("covid-19-cough", "covid19_cough"),
    ],
)
def test_an_unknown_name_shows_the_nearest(tmp_path: Path, wrong: str, right: str) -> None:
    with pytest.raises(SourceError, match="no such source") as caught:
        scan_source(wrong, tmp_path)
    assert right in caught.value.remedy


@pytest.mark.parametrize("root", ["../elsewhere", "a/../../b", "/etc"])
def test_a_root_outside_the_data_root_is_refused(tmp_path: Path, root: str) -> None:
    with pytest.raises(SourceError, match="leaves the data root"):
        scan_source("folder", tmp_path, root)


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_a_missing_or_empty_folder_says_how_to_get_the_data(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceError) as caught:
        scan_source(name, tmp_path, "absent")
    assert caught.value.remedy
    with pytest.raises(SourceError) as caught:
        scan_source(name, tmp_path)
    assert caught.value.remedy


def test_paths_are_relative_to_the_data_root_and_records_sorted(tmp_path: Path) -> None:
    covid_ct_tree(tmp_path / "sets" / "covid-ct")
    scan = scan_source("covid_ct", tmp_path, "sets/covid-ct")
    assert list(scan.records.columns) == list(MANIFEST_COLUMNS)
    assert all((tmp_path / path).is_file() for path in scan.records["path"])
    assert scan.records["record_id"].is_monotonic_increasing
    assert "covid_ct:CT_COVID/a%0.png" in set(scan.records["record_id"])
    check_manifest(scan.records)


def test_excluded_paths_are_relative_to_the_data_root_too(tmp_path: Path) -> None:
    cough_tree(tmp_path / "c", [{"filename": "a.mp3", "covid19": True, "source": "t"}], ["b.mp3"])
    scan = scan_source("covid19_cough", tmp_path, "c")
    assert {e.path for e in scan.excluded} == {"c/raw/a.mp3", "c/raw/b.mp3"}


def test_two_folders_of_the_default_layout_can_stand_in_one_study(tmp_path: Path) -> None:
    for hospital in ("north", "south"):
        touch(tmp_path / hospital, "ct/normal/1.png", "ct/covid19/2.png")
    north, south = (scan_source("folder", tmp_path, h).records for h in ("north", "south"))
    for column in ("record_id", "patient_id", "path"):
        assert not set(north[column]) & set(south[column])
    assert set(north["site"]) == {"north"}
    assert set(north["source"]) == {"folder"}


def test_scanning_opens_no_recording(tmp_path: Path) -> None:
    touch(tmp_path, "ct/normal/empty.png", "cough_audio/normal/empty.wav")
    assert len(scan_source("folder", tmp_path).records) == 2
