"""The models of a study: ensembles of seeds in folders of their own, and sites for sampling."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pulmofuse.config import StudyConfig, parse_config
from pulmofuse.errors import StudyError
from pulmofuse.models import Ensemble
from pulmofuse.pipeline import Cohort, train_unimodal
from pulmofuse.pipeline.models import site_codes
from pulmofuse.preprocessing import Cache
from pulmofuse.schema import Modality

N = 48
CONFIG = """
name: ensemble
question: Do two models agree?
target: {classes: [normal, covid19], positive: covid19, mapping: {normal: normal, covid19: covid19}}
sources: [{name: synthetic}]
cough:
  preprocessing: {duration_s: 0.25}
  model: {architecture: mfcc_lstm, hidden: 4}
  training: {epochs: 2, batch_size: 16, precision: fp32, members: MEMBERS, sampling: balanced_sites}
"""


def config(members: int) -> StudyConfig:
    return parse_config(CONFIG.replace("MEMBERS", str(members)))


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    rng = np.random.default_rng(0)
    ill = rng.random(N) < 0.5
    sounds = (rng.normal(size=(N, 4000)) * 3000 * (1 + 2 * ill[:, None])).astype(np.int16)
    records = pd.DataFrame(
        {
            "patient_id": [f"patient {i}" for i in range(N)],
            "record_id": [f"r{i:02}" for i in range(N)],
            "modality": "cough",
            "split": np.array(["train", "val"])[np.arange(N) % 2],
            "y_true": np.where(ill, "covid19", "normal"),
            "source": "synthetic",
            "site": np.where(np.arange(N) % 4 < 2, "a", None),
            "start": np.arange(N),
            "stop": np.arange(N) + 1,
        }
    )
    index = pd.DataFrame({"path": records["record_id"], "start": np.arange(N), "stop": 1})
    return Cohort(records, pd.DataFrame(), {Modality.COUGH: Cache(sounds, index, pd.DataFrame())})


def silent(done: int, total: int, note: str) -> None:
    """Tell nobody."""


def test_members_lie_in_folders_of_their_own_and_the_first_is_the_single_model(
    cohort: Cohort, tmp_path: Path
) -> None:
    notes = []
    two, note = train_unimodal(
        Modality.COUGH, cohort, config(2), tmp_path / "two", lambda *told: notes.append(told)
    )
    one, _ = train_unimodal(Modality.COUGH, cohort, config(1), tmp_path / "one", silent)
    assert isinstance(two.model, Ensemble)
    assert "2 models" in note
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["member-0", "member-1"]
    assert (tmp_path / "one" / "best.safetensors").is_file()
    first, second = (member.state_dict() for member in two.model.each())
    for name, value in one.model.state_dict().items():
        assert torch.equal(first[name], value), name
    assert not torch.equal(first["head.1.weight"], second["head.1.weight"])
    done, total, last = notes[-1]
    assert done == total
    assert "model 2/2" in last


def test_a_run_that_was_killed_between_members_goes_on_with_the_next(
    cohort: Cohort, tmp_path: Path
) -> None:
    class Killed(BaseException):
        """Stands for SIGKILL."""

    def kill(done: int, total: int, note: str) -> None:
        if "model 2/2" in note:
            raise Killed

    with pytest.raises(Killed):
        train_unimodal(Modality.COUGH, cohort, config(2), tmp_path / "a", kill)
    seen: list[str] = []
    resumed, _ = train_unimodal(
        Modality.COUGH, cohort, config(2), tmp_path / "a", lambda _d, _t, note: seen.append(note)
    )
    straight, _ = train_unimodal(Modality.COUGH, cohort, config(2), tmp_path / "b", silent)
    assert all("model 2/2" in note for note in seen)
    for name, value in straight.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("choose_epoch=auc_within_site", "choose_epoch auc_within_site"),
        ("adversarial=0.5", "adversarial 0.5"),
    ],
)
def test_sites_that_cannot_do_what_is_asked_stop_the_training_before_it_begins(
    cohort: Cohort, tmp_path: Path, override: str, expected: str
) -> None:
    """The site goes with the class: nothing can be compared, or told, inside either."""
    records = cohort.records.assign(site=cohort.records["y_true"])
    split_up = Cohort(records, cohort.excluded, cohort.caches)
    asked = parse_config(CONFIG.replace("MEMBERS", "1"), [f"cough.training.{override}"])
    with pytest.raises(StudyError, match=f"{expected}: no "):
        train_unimodal(Modality.COUGH, split_up, asked, tmp_path / "run", silent)
    assert not (tmp_path / "run").exists()


def test_sites_are_those_of_the_records_and_else_their_data_set() -> None:
    records = pd.DataFrame(
        {"source": ["x", "x", "y", "y", "x"], "site": ["1", None, "1", None, "1"]}
    )
    assert site_codes(records).tolist() == [1, 0, 3, 2, 1]
    nowhere = pd.DataFrame({"source": ["x", "y"], "site": [None, None]})
    assert site_codes(nowhere).tolist() == [0, 1]
