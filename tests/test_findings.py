"""The vocabulary of findings, and how a manifest states them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulmofuse.findings import (
    NIH_FINDINGS,
    Finding,
    findings_matrix,
    findings_text,
    parse_findings,
)

STATED = st.dictionaries(st.sampled_from(Finding), st.sampled_from([0, 1]))


@given(stated=STATED)
def test_what_is_written_is_read_again(stated: dict[Finding, int]) -> None:
    text = findings_text(stated)

    assert (parse_findings(text) if text else {}) == stated
    assert text is None or json.loads(text) == stated


@given(rows=st.lists(STATED, max_size=5), findings=st.lists(st.sampled_from(Finding), unique=True))
def test_a_matrix_has_what_is_said_and_nan_for_the_rest(
    rows: list[dict[Finding, int]], findings: list[Finding]
) -> None:
    matrix = findings_matrix([findings_text(row) for row in rows], findings)

    assert matrix.shape == (len(rows), len(findings))
    for i, row in enumerate(rows):
        for j, finding in enumerate(findings):
            assert matrix[i, j] == row[finding] if finding in row else np.isnan(matrix[i, j])


def test_a_missing_cell_says_nothing_however_it_is_written() -> None:
    assert np.isnan(findings_matrix([None, np.nan, "{}"], ["mass"])).all()  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("mass", "is not a JSON object"),
        ("[]", "is not a JSON object"),
        ('[["mass", 1]]', "is not a JSON object"),
        ("null", "is not a JSON object"),
        ("[" * 100_000, "is not a JSON object"),
        ('{"Mass": 1}', "'Mass', which is no finding; the nearest is mass"),
        ('{"flu": 1}', "'flu', which is no finding; they are atelectasis, "),
        ('{"mass": -1}', "mass is -1; 1 is present, 0 absent"),
        ('{"mass": null}', "mass is None; 1 is present"),
        ('{"mass": true}', "mass is True; 1 is present"),
        ('{"mass": 0.5}', "mass is 0.5; 1 is present"),
        ('{"mass": 1, "mass": 0}', "names mass twice"),
    ],
)
def test_refuses(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=r"^(is|names|says) ") as caught:
        parse_findings(text)

    assert why in str(caught.value)


def test_the_first_are_those_of_chest_xray14() -> None:
    # Table 1 and appendix of Wang et al. 2017, in the order of the published lists.
    assert list(NIH_FINDINGS) == [
        "atelectasis", "cardiomegaly", "effusion", "infiltration", "mass", "nodule", "pneumonia",
        "pneumothorax", "consolidation", "edema", "emphysema", "fibrosis", "pleural_thickening",
        "hernia",
    ]  # fmt: skip


@pytest.mark.parametrize("finding", Finding)
def test_every_finding_is_named_in_the_documents(finding: str) -> None:
    text = (Path(__file__).parents[1] / "docs" / "data.md").read_text("utf-8")

    assert f"`{finding}`" in text
