"""Training rows of the fusions: who is drawn how often, and what a fit makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import roc_auc_score

from pulmofuse.config import FusionTraining, TrainingConfig
from pulmofuse.models import FUSIONS, build_fusion
from pulmofuse.training import FeatureSource, class_weights, fair_weights, fit
from pulmofuse.training.data import EpochBatches
from pulmofuse.training.sampling import draw_weighted

# 500 X-rays, 50 CT scans and 50 coughs of different people; classes differ by modality.
PRESENT = np.repeat(np.eye(3, dtype=bool)[[1, 0, 2]], [500, 50, 50], axis=0)
Y = np.concatenate([np.arange(500) % 5 == 0, np.arange(50) % 5 > 0, np.arange(50) % 2]).astype(int)


def test_single_modality_rows_give_every_modality_the_same_share() -> None:
    weights = fair_weights(PRESENT, Y, balance=False)
    assert weights.mean() == pytest.approx(1.0)
    assert PRESENT.T @ weights == pytest.approx([200.0, 200.0, 200.0])


def test_balanced_draws_hide_the_class_from_what_is_missing() -> None:
    weights = fair_weights(PRESENT, Y, balance=True)
    assert PRESENT.T @ weights == pytest.approx([200.0, 200.0, 200.0])
    ill = PRESENT.T @ (weights * Y) / 200
    found = [Y[PRESENT[:, j]].mean() for j in range(3)]
    assert np.abs(ill - 0.5).max() < 0.11
    assert np.abs(np.array(found) - 0.5).max() > 0.29


def test_one_patient_does_not_stand_for_a_class() -> None:
    y = np.zeros(400, dtype=int)
    y[0] = 1
    weights = fair_weights(np.ones((400, 2), dtype=bool), y, balance=True)
    assert 10 < weights[0] / weights[1] < 100  # 399 would be even classes


def test_equal_rows_are_drawn_alike() -> None:
    even = fair_weights(np.ones((8, 2), dtype=bool), np.arange(8) % 2, balance=True)
    assert even == pytest.approx(np.ones(8))


@given(
    arrays(float, st.integers(1, 40), elements=st.floats(0.0, 100.0)).filter(lambda w: w.sum() > 0),
    st.integers(1, 200),
    st.integers(0, 9),
)
@settings(max_examples=100, deadline=None)
def test_weighted_draws_are_within_one_of_their_share(
    weights: np.ndarray, n: int, seed: int
) -> None:
    drawn = draw_weighted(weights, n, np.random.default_rng(seed))
    counts = np.bincount(drawn, minlength=len(weights))
    assert len(drawn) == n
    assert (np.abs(counts - n * weights / weights.sum()) < 1 + 1e-6).all()


def test_equal_weights_take_every_row_once_an_epoch() -> None:
    batches = EpochBatches(50, 16, seed=1, weights=np.ones(50))
    first = np.concatenate(list(batches))
    assert sorted(first) == list(range(50))
    batches.set_epoch(1)
    assert not np.array_equal(first, np.concatenate(list(batches)))


def test_class_weights_are_those_of_the_rows_that_are_drawn() -> None:
    y, often = np.array([0, 0, 0, 1]), np.array([1.0, 1.0, 1.0, 3.0])
    repeated = np.repeat(y, often.astype(int))
    torch.testing.assert_close(class_weights(y, 2, often), class_weights(repeated, 2))


def _sources(rng: np.random.Generator) -> tuple[FeatureSource, FeatureSource]:
    out = []
    for n in (80, 40):
        y = rng.integers(0, 2, n)
        has = rng.random((n, 2)) < 0.7
        features = {m: rng.normal(size=(n, 6)) + 2 * y[:, None] for m in ("ct", "cough")}
        lost = {m: np.where(has[:, [j]], f, np.nan) for j, (m, f) in enumerate(features.items())}
        out.append(FeatureSource(lost, has, y, fair_weights(has, y, balance=True)))
    return out[0], out[1]


@pytest.mark.parametrize("method", list(FUSIONS))
def test_a_fit_is_a_function_of_its_seed_and_survives_a_stop(method: str, tmp_path: Path) -> None:
    training = FusionTraining().training.model_copy(update={"epochs": 3, "batch_size": 16})

    def train(folder: str, seed: int = 5, stop_at: int | None = None) -> torch.Tensor:
        def progress(done: int, total: int, note: str) -> None:
            if done == stop_at:
                raise KeyboardInterrupt

        torch.manual_seed(seed)
        model = build_fusion(method, {"ct": 6, "cough": 6}, 2, 8, 0.2, 0.3)
        train_rows, val = _sources(np.random.default_rng(0))
        _fit(model, train_rows, val, training, seed, tmp_path / folder, progress)
        return torch.cat([p.flatten() for p in model.state_dict().values()])

    whole = train("whole")
    assert torch.isfinite(whole).all()
    assert not torch.equal(whole, train("other", seed=6))
    with pytest.raises(KeyboardInterrupt):
        train("stopped", stop_at=12)
    assert torch.equal(whole, train("stopped"))


@pytest.mark.parametrize("method", list(FUSIONS))
def test_a_fusion_of_true_pairs_beats_the_best_that_one_modality_can_say(
    method: str, tmp_path: Path
) -> None:
    # Normal features with means 1.5 standard deviations apart along one direction: alone, the true
    # likelihood ratio of a modality has AUC .86; of all three together it has .97.
    rng = np.random.default_rng(2)
    y = rng.integers(0, 2, 2400)
    features = {m: rng.normal(size=(2400, 8)) for m in ("ct", "cxr", "cough")}
    for values in features.values():
        values[:, 0] += 1.5 * y
    has = np.ones((2400, 3), dtype=bool)
    parts = [slice(0, 300), slice(300, 400), slice(400, None)]
    train, val, test = (
        FeatureSource({m: f[rows] for m, f in features.items()}, has[rows], y[rows])
        for rows in parts
    )
    torch.manual_seed(0)
    model = build_fusion(method, dict.fromkeys(features, 8), 2, 32, 0.3, 0.3)
    model.learn_scale(train.features, train.present)
    training = FusionTraining().training.model_copy(update={"batch_size": 32})
    _fit(model, train, val, training, 1, tmp_path, None)
    (inputs, present), known = test[range(len(test))]
    with torch.inference_mode():
        logits = model(inputs, present).numpy()
    truth, fused = known.y.numpy(), logits[:, 1] - logits[:, 0]
    alone = [f[400:, 0] for f in features.values()]
    best = max(alone, key=lambda score: float(roc_auc_score(truth, score)))
    gains = []
    for _ in range(100):
        rows = rng.integers(0, len(truth), len(truth))
        aucs = [roc_auc_score(truth[rows], score[rows]) for score in (fused, best)]
        gains.append(aucs[0] - aucs[1])
    assert np.quantile(gains, 0.025) > 0


def _fit(
    model: torch.nn.Module,
    train: FeatureSource,
    val: FeatureSource,
    training: TrainingConfig,
    seed: int,
    folder: Path,
    progress: object,
) -> None:
    fit(
        model,
        train,
        val,
        config=training,
        class_weights=torch.ones(2),
        seed=seed,
        folder=folder,
        progress=progress,  # type: ignore[arg-type]
    )
