"""Two processes that share every batch learn what one process learns from the whole batches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.training.distributed_script import train

SCRIPT = Path(__file__).with_name("distributed_script.py")


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of what two processes on the CPU (gloo) left."""
    folder = tmp_path_factory.mktemp("together")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launch, str(SCRIPT), str(folder), "2"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("trainable", ["all", "gradual"])
def test_the_weights_are_those_of_one_process(
    together: Path, tmp_path: Path, trainable: str
) -> None:
    alone = train(tmp_path, 1, trainable)
    for rank in range(2):
        state = json.loads((together / f"{trainable}-{rank}.json").read_text())
        for name, value in alone.state_dict().items():
            np.testing.assert_allclose(state[name], value.numpy(), atol=2e-5, err_msg=name)
    columns = ["epoch", "val_loss", "val_auc", "lr"]
    histories = [pd.read_csv(f / "history.csv")[columns] for f in (tmp_path, together / trainable)]
    pd.testing.assert_frame_equal(*histories, atol=1e-4)


def test_files_are_written_once(together: Path) -> None:
    files = {path.name for path in (together / "all").iterdir() if path.is_file()}
    assert files == {"best.safetensors", "last.safetensors", "history.csv"}
    assert len(pd.read_csv(together / "all" / "history.csv")) == 3
    assert len(list((together / "all" / "tensorboard").rglob("events*"))) == 1
