"""The probe: the figures of a regression on all features, whatever their number."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pulmofuse.pipeline import probe as module
from pulmofuse.schema import Split

PENALTY = 1e-2


@pytest.mark.parametrize(("n_features", "n_classes"), [(8, 2), (300, 2), (300, 3)])
def test_turned_features_give_the_same_probabilities(
    n_features: int, n_classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    n = 120
    y = np.arange(n) // 3 % n_classes
    features = rng.normal(size=(n, n_features)).astype(np.float32) * rng.uniform(0.1, 5, n_features)
    features[:, 0] += y
    splits = {split: np.arange(n) % 3 == i for i, split in enumerate(Split)}
    monkeypatch.setattr(module, "_PENALTIES", (PENALTY,))
    positive = 1 if n_classes == 2 else None
    found = module.probe(features, y, splits, positive)
    train = splits[Split.TRAIN]
    plain = make_pipeline(
        StandardScaler(), LogisticRegression(C=PENALTY, class_weight="balanced", tol=1e-8)
    ).fit(features[train], y[train])
    expected = plain.predict_proba(features[splits[Split.TEST]])
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_the_penalty_is_the_one_that_does_best_on_validation() -> None:
    """One feature tells, three hundred are noise: little penalty remembers the training."""
    rng = np.random.default_rng(1)
    n = 240
    y = rng.integers(0, 2, n)
    features = rng.normal(size=(n, 301))
    features[:, 0] += 3 * y
    splits = {split: np.arange(n) % 3 == i for i, split in enumerate(Split)}
    chosen = module.probe(features, y, splits, 1)
    train, val, test = (splits[split] for split in Split)
    reached, answers = [], []
    for penalty in module._PENALTIES:
        plain = make_pipeline(
            StandardScaler(), LogisticRegression(C=penalty, class_weight="balanced", tol=1e-8)
        ).fit(features[train], y[train])
        reached.append(roc_auc_score(y[val], plain.predict_proba(features[val])[:, 1]))
        answers.append(plain.predict_proba(features[test]))
    assert max(reached) > min(reached)
    np.testing.assert_allclose(chosen, answers[int(np.argmax(reached))], atol=1e-3)
