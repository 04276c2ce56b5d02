"""SARS-CoV-2-CT: two folders, nobody known."""

from __future__ import annotations

from pathlib import Path

import pytest

from pulmofuse.errors import SourceError
from pulmofuse.sources import scan_source
from tests.sources.trees import touch


def tree(root: Path) -> Path:
    return touch(
        root,
        "COVID/Covid (1).png",
        "COVID/Covid (2).png",
        "non-COVID/Non-Covid (1).png",
        "non-COVID/Thumbs.db",
    )


def test_the_folder_is_the_label_and_nobody_is_known(tmp_path: Path) -> None:
    scan = scan_source("sars_cov2_ct", tree(tmp_path))
    rows = scan.records.set_index("record_id")
    assert rows["label"].to_dict() == {
        "sars_cov2_ct:COVID/Covid (1).png": "covid19",
        "sars_cov2_ct:COVID/Covid (2).png": "covid19",
        "sars_cov2_ct:non-COVID/Non-Covid (1).png": "not_covid19",
    }
    assert set(rows["modality"]) == {"ct"}
    assert rows["patient_id"].is_unique
    assert not rows["patient_known"].any()
    assert [e.path for e in scan.excluded] == ["non-COVID/Thumbs.db"]


@pytest.mark.parametrize("folder", ["COVID", "non-COVID"])
def test_a_missing_class_is_named(tmp_path: Path, folder: str) -> None:
    (tree(tmp_path) / folder).rename(tmp_path / "moved")
    with pytest.raises(SourceError, match=f"/{folder}: it is missing") as caught:
        scan_source("sars_cov2_ct", tmp_path)
    assert "kaggle.com" in caught.value.remedy
