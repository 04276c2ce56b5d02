"""Groups that stay together, and what is dropped where a split leaks."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulmofuse.config import SplitConfig
from pulmofuse.curation.audit import audit
from pulmofuse.curation.copies import no_pairs, patient_groups
from pulmofuse.curation.leaks import drop_leaks, is_leak, stop_on_leaks
from pulmofuse.curation.split import assign_splits
from pulmofuse.errors import LeakageFound, PulmofuseError
from pulmofuse.schema import Split, manifest_frame


def _records(*rows: tuple[str, str, str | None, str | None]) -> pd.DataFrame:
    """Records from (record, patient, split, series)."""
    frame = manifest_frame(
        {
            "record_id": record,
            "patient_id": patient,
            "patient_known": True,
            "modality": "ct",
            "path": f"{record}.png",
            "label": "normal",
            "source": "s",
            "split": split,
            "series_id": series,
        }
        for record, patient, split, series in rows
    )
    return frame.assign(y_true="a", used=True)


def _pairs(*rows: tuple[str, str, str]) -> pd.DataFrame:
    if not rows:
        return no_pairs()
    return pd.DataFrame(rows, columns=["record_a", "record_b", "kind"]).assign(score=1.0)


@st.composite
def cohorts(draw: st.DrawFn, splits: bool = True):
    """Up to 40 records of up to 12 patients and 6 volumes, and up to 12 pairs of copies."""
    n = draw(st.integers(6, 40))
    place = st.sampled_from([s.value for s in Split]) if splits else st.none()
    series = st.one_of(st.none(), st.integers(0, 5).map(str))
    rows = [(f"r{i}", f"p{draw(st.integers(0, 11))}", draw(place), draw(series)) for i in range(n)]
    edges = draw(st.sets(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=12))
    kinds = st.sampled_from(["exact", "near"])
    pairs = [(f"r{a}", f"r{b}", draw(kinds)) for a, b in sorted(edges) if a < b]
    return _records(*rows), _pairs(*pairs)


def test_patients_are_joined_by_copies_and_by_series() -> None:
    records = _records(
        ("a", "p3", None, None), ("b", "p1", None, None), ("c", "p2", None, "v"),
        ("d", "p1", None, "v"), ("e", "p4", None, None), ("f", "p5", None, "w"),
    )  # fmt: skip
    groups = patient_groups(records, _pairs(("a", "b", "near")))
    assert groups.tolist() == ["p1", "p1", "p1", "p1", "p4", "p5"]


def test_without_copies_and_series_a_group_is_a_patient() -> None:
    records = _records(*[(f"r{i}", f"p{i % 7}", None, None) for i in range(20)])
    assert patient_groups(records, no_pairs()).tolist() == records["patient_id"].tolist()


@settings(max_examples=25, deadline=None)
@given(cohorts())
def test_groups_are_the_finest_that_keep_linked_records_together(cohort) -> None:
    """Reference: merge sets of records until no link joins two of them."""
    records, pairs = cohort
    links = [set(own) for _, own in records.groupby("patient_id")["record_id"]]
    links += [set(own) for _, own in records.groupby("series_id")["record_id"]]
    links += [{a, b} for a, b in zip(pairs["record_a"], pairs["record_b"], strict=True)]
    merged: list[set[str]] = []
    for link in links:
        touching = [own for own in merged if own & link]
        merged = [own for own in merged if not own & link] + [link.union(*touching)]
    groups = patient_groups(records, pairs)
    found = {frozenset(own) for _, own in records["record_id"].groupby(groups)}
    assert found == {frozenset(own) for own in merged}


@pytest.mark.parametrize(
    ("second", "pairs", "words"),
    [
        (("b", "p1", "train", None), (), "is of a patient"),
        (("b", "p2", "train", "v"), (), "is a slice of a volume"),
        (("b", "p2", "train", None), (("a", "b", "exact"),), "is a copy of a file"),
        (("b", "p2", "train", None), (("a", "b", "near"),), "is nearly the same as a file"),
    ],
)
def test_training_gives_up_what_the_test_holds(second, pairs, words: str) -> None:
    records = _records(("a", "p1", "test", "v"), second, ("c", "p3", "train", None))
    kept, (exclusion,) = drop_leaks(records, _pairs(*pairs))
    assert kept["record_id"].tolist() == ["a", "c"]
    assert (exclusion.path, exclusion.stage) == ("b.png", "audit")
    assert exclusion.reason == f"{words} of the test split, and stood in train"


def test_training_gives_up_what_validation_holds_but_not_what_left_validation() -> None:
    records = _records(
        ("a", "p1", "test", None), ("b", "p1", "val", None), ("c", "p2", "val", None),
        ("d", "p2", "train", None), ("e", "p1", "train", None), ("f", "p3", "train", None),
    )  # fmt: skip
    kept, exclusions = drop_leaks(records, no_pairs())
    assert kept["record_id"].tolist() == ["a", "c", "f"]
    assert [e.path for e in exclusions] == ["b.png", "d.png", "e.png"]


@settings(max_examples=25, deadline=None)
@given(cohorts())
def test_what_is_kept_passes_the_audit_and_the_test_set_stays(cohort) -> None:
    records, pairs = cohort
    kept, exclusions = drop_leaks(records, pairs)
    assert len(kept) + len(exclusions) == len(records)
    assert (kept["split"] == "test").sum() == (records["split"] == "test").sum()
    checks = audit(kept.assign(y_true=None), pairs, 1).to_json()["checks"]
    assert all(c["verdict"] == "pass" for c in checks if c["id"].startswith("leakage."))
    stop_on_leaks(checks)


@settings(max_examples=20, deadline=None)
@given(cohorts(splits=False), st.integers(0, 100))
def test_a_split_by_groups_leaks_nothing(cohort, seed: int) -> None:
    records, pairs = cohort
    groups = patient_groups(records, pairs)
    if groups.nunique() < len(Split):
        return
    split = assign_splits(records, records["y_true"], SplitConfig(), seed, groups)
    checks = audit(split.assign(y_true=None), pairs, 1).to_json()["checks"]
    assert all(c["verdict"] == "pass" for c in checks if c["id"].startswith("leakage."))


def test_a_leak_stops_with_its_counts_and_both_ways_out() -> None:
    records = _records(
        ("a", "p1", "test", None), ("b", "p1", "train", None), ("c", "p2", "train", None)
    )
    found = audit(records.assign(y_true=None), _pairs(("a", "c", "near")), 1)
    with pytest.raises(LeakageFound) as caught:
        stop_on_leaks(found.to_json()["checks"])
    message = str(caught.value)
    assert isinstance(caught.value, PulmofuseError)
    assert "leakage.patient 1, leakage.near_duplicate 1" in message
    assert "p1 (test, train)" in message
    assert "--drop-leaks" in message
    assert "--accept-leaks" in message


def test_the_refusal_is_one_line_that_says_where_the_pairs_are() -> None:
    records = _records(("a", "p1", "test", None), ("b", "p2", "train", None)).assign(
        y_true=["a", "b"]
    )
    checks = audit(records, _pairs(("a", "b", "exact")), 1).to_json()["checks"]
    with pytest.raises(LeakageFound) as caught:
        stop_on_leaks(checks, Path("out/audit.html"))
    message = str(caught.value)
    assert "\n" not in message
    assert "leakage.exact_duplicate 1, labels.contradiction 1" in message
    assert "a.png (test) and b.png (train)" in message
    assert "See every pair in out/audit.html" in message
    assert "`cleaning.copies: drop`" in message
    assert "--accept-leaks" in message
    assert len(message) < 600


def test_a_shortcut_stops_nothing_and_is_not_counted_among_the_leaks() -> None:
    shortcut = {"id": "confounding.traits", "verdict": "fail", "value": 0.98, "detail": "Told."}
    warning = {"id": "leakage.near_duplicate", "verdict": "warn", "value": 2.0, "detail": "Wait."}
    leak = {"id": "leakage.series", "verdict": "fail", "value": 4.0, "detail": "Torn volumes."}
    assert not is_leak("confounding.traits", "fail")
    stop_on_leaks([shortcut, warning])
    with pytest.raises(LeakageFound) as caught:
        stop_on_leaks([shortcut, warning, leak])
    assert caught.value.what == "the audit (leakage.series 4)"
    assert caught.value.why == "Torn volumes"
