"""Checkpoints without pickle: what goes in comes out, and nothing else is read."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pulmofuse.errors import StudyError
from pulmofuse.training.checkpoint import load, save

_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False)
)
_TREES = st.recursive(
    _LEAVES,
    lambda below: (
        st.lists(below)
        | st.tuples(below, below)
        | st.dictionaries(st.text() | st.integers(), below)
    ),
    max_leaves=12,
)


@given(tree=st.dictionaries(st.text() | st.integers(), _TREES))
@settings(max_examples=50, deadline=None)
def test_any_structure_of_plain_values_survives(
    tree: dict[object, object], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("checkpoint") / "c.safetensors"
    save(path, tree)  # type: ignore[arg-type]
    assert load(path) == tree


def test_optimiser_state_survives_with_its_integer_keys_and_dtypes(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.randn(4, 3))
    optimiser = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimiser.step()
    state = {"optimizer": optimiser.state_dict(), "half": torch.ones(2, dtype=torch.bfloat16)}
    save(tmp_path / "c.safetensors", state)
    loaded = load(tmp_path / "c.safetensors")
    assert torch.equal(
        loaded["optimizer"]["state"][0]["exp_avg"], optimiser.state[weight]["exp_avg"]
    )
    assert loaded["half"].dtype is torch.bfloat16
    torch.optim.AdamW([weight]).load_state_dict(loaded["optimizer"])


def test_shared_and_strided_tensors_are_written(tmp_path: Path) -> None:
    base = torch.arange(6.0).reshape(2, 3)
    save(tmp_path / "c.safetensors", {"a": base, "b": base, "c": base.T})
    assert torch.equal(load(tmp_path / "c.safetensors")["c"], base.T)


def test_what_is_neither_tensor_nor_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="cannot hold a set"):
        save(tmp_path / "c.safetensors", {"a": {1, 2}})
    assert not (tmp_path / "c.safetensors").exists()


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 40, pickle.dumps({"state_dict": {}}), b"PK\x03\x04 not a checkpoint"]
)
def test_a_file_of_another_kind_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "c.safetensors"
    path.write_bytes(content)
    with pytest.raises(StudyError, match="not a readable checkpoint"):
        load(path)


def test_a_cut_checkpoint_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    save(path, {"a": torch.ones(100)})
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(StudyError, match="not a readable checkpoint"):
        load(path)
