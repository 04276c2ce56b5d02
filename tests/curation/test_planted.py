"""Leaks and shortcuts planted in made-up manifests: each is found, and clean data stay quiet."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from pulmofuse.curation.audit import Audit, audit
from pulmofuse.curation.copies import no_pairs
from pulmofuse.schema import manifest_frame

SEEDS = 50
N_PATIENTS, N_TRAITS = 300, 8

#: Of two normal distributions: AUC = Phi(shift / sqrt 2), so .954 gives .75.
SHIFT = 0.954


def _clean(seed: int, per_patient: int = 1) -> pd.DataFrame:
    """X-rays of 300 patients of three sources; nothing has to do with the label."""
    rng = np.random.default_rng(seed)
    n = N_PATIENTS
    columns = {
        "label": rng.permutation(np.where(np.arange(n) % 2, "covid19", "normal")),
        "split": rng.permutation(np.repeat(["train", "val", "test"], [180, 60, 60])),
        "source": rng.choice(["north", "south", "west"], n),
        "age": rng.integers(20, 90, n).astype(float),
        "sex": rng.choice(["F", "M"], n),
    }
    rows = [
        {
            "record_id": f"r{i}-{k}",
            "patient_id": f"p{i}",
            "patient_known": True,
            "modality": "cxr",
            "path": f"{i}-{k}.png",
            "series_id": f"v{i}",
            "traits": json.dumps({f"t{j}": float(x) for j, x in enumerate(rng.normal(size=8))}),
        }
        | {name: values[i] for name, values in columns.items()}
        for i in range(n)
        for k in range(per_patient)
    ]
    return manifest_frame(rows)


def _audit(frame: pd.DataFrame, pairs: pd.DataFrame | None = None, seed: int = 0) -> Audit:
    records = frame.assign(y_true=frame["label"], used=True)
    return audit(records, no_pairs() if pairs is None else pairs, seed)


def _verdicts(found: Audit) -> dict[str, str]:
    return {check.id: check.verdict for check in found.checks if check.verdict != "pass"}


def _shifted(text: str, label: str) -> str:
    traits = json.loads(text)
    return json.dumps(traits | {"t3": traits["t3"] + SHIFT * (label == "covid19")})


@pytest.mark.slow
def test_clean_manifests_raise_no_alarm_and_a_planted_shortcut_always_does() -> None:
    """One audit of each kind per seed; the p-values of clean data must be spread evenly too."""
    alarms, missed, p_values = [], [], []
    for seed in range(SEEDS):
        frame = _clean(seed)
        found = _audit(frame, seed=seed)
        asked = ("leakage.", "labels.", "confounding.")
        alarms += [(seed, name) for name in _verdicts(found) if name.startswith(asked)]
        p_values += [c.p_value for c in found.checks if c.id == "confounding.traits"]
        frame["traits"] = [
            _shifted(text, label)
            for text, label in zip(frame["traits"], frame["label"], strict=True)
        ]
        # One source and nobody's age: only the traits cost time.
        found = _audit(frame.assign(source="north", age=np.nan, sex=None), seed=seed)
        (check,) = [c for c in found.checks if c.id == "confounding.traits"]
        if check.verdict == "pass" or "t3 alone tells" not in check.detail:
            missed.append((seed, check.value, check.p_value))
    assert not missed
    assert len(alarms) <= 2, alarms
    # Two standard errors of a share of .5 and of .1 in 50.
    assert np.mean(np.array(p_values) <= 0.5) == pytest.approx(0.5, abs=0.15)
    assert np.mean(np.array(p_values) <= 0.1) == pytest.approx(0.1, abs=0.09)


@pytest.mark.parametrize("leak", ["patient", "series", "exact_duplicate", "near_duplicate"])
def test_one_planted_leak_is_found_for_every_seed(leak: str) -> None:
    """One of 600 records is moved, or one copy is planted: the check of that leak alone fails."""
    for seed in range(SEEDS):
        rng = np.random.default_rng(1000 + seed)
        # Unknown classes: questions of shortcuts are not asked, so that this takes a second.
        frame = _clean(seed, per_patient=2).assign(label="unknown")
        train, test = (frame.index[frame["split"] == s] for s in ("train", "test"))
        one, other = int(rng.choice(train)), int(rng.choice(test))
        pairs = None
        if leak == "patient":
            frame["series_id"] = None
            frame.loc[one, "split"] = "test"
        elif leak == "series":
            frame.loc[one, "patient_id"] = "somebody"
            frame.loc[one, "split"] = "test"
        else:
            ids = sorted(frame.loc[[one, other], "record_id"])
            pairs = pd.DataFrame([[*ids, leak.split("_", maxsplit=1)[0], 1.0]],
                                 columns=no_pairs().columns)  # fmt: skip
        records = frame.assign(y_true=None, used=True)
        found = audit(records, no_pairs() if pairs is None else pairs, seed)
        # Nobody has a class, of which the audit warns.
        assert _verdicts(found) == {f"leakage.{leak}": "fail", "support": "warn"}
