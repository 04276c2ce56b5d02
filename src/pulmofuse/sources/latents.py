"""The statistical model behind the synthetic cohort, and how well the best reader could do.

Patient with class y; for each modality m and disease k of the cohort a latent

    z[m, k] ~ Normal(d[m] if y == k else 0, 1),   corr(z[m, k], z[m', k]) = rho given y,

independent between diseases. What a picture shows of disease k is a monotone function of z[m, k],
so no reader of the pictures can beat the reader of the latents. That reader's posterior is
analytic: with Delta^2 = d' Sigma^-1 d over a subset S of modalities (the squared Mahalanobis
distance), t[k] = d' Sigma^-1 z[., k] is sufficient and

    log p(k | z) = log pi[k] + t[k] - Delta^2 / 2 + const (a disease),  log pi[normal] + const.

For normal against one disease its ROC-AUC is Phi(Delta / sqrt 2) (Green & Swets 1966).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from pulmofuse.schema import Label, Modality, subset_name

#: Classes that the pictures have signs for; normal is the absence of all of them.
DRAWN: tuple[Label, ...] = (
    Label.NORMAL,
    Label.COVID19,
    Label.PNEUMONIA,
    Label.TUBERCULOSIS,
    Label.CHRONIC_LUNG_DISEASE,
)

_ORACLE_DRAWS = 100_000  # standard error of an AUC about 0.001
_ORACLE_SEED = 20_201_123
_GOLDEN = 0.618_033_988_749_895  # its multiples fill [0, 1) evenly (Weyl)


class SyntheticConfig(BaseModel):
    """A synthetic cohort.

    Attributes:
        patients: number of patients, each with all three modalities.
        classes: which of `DRAWN` there are.
        prevalence: share of each class; empty means equal shares.
        strength: d of each modality: how far the mean of a sick patient's latent lies from the
            others', in standard deviations.
        correlation: rho, between the modalities of one patient given the class.
        shortcut: modality in which the acquisition gives the label away, or None.
        shortcut_agreement: probability that the acquisition trait is that of the label.
        image_size: height and width of the images, pixels.
        seed: of everything.
        missing: share of (patient, modality) records left out; each patient keeps one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    patients: int = Field(default=360, ge=2, le=100_000)
    classes: tuple[Label, ...] = (Label.NORMAL, Label.COVID19, Label.PNEUMONIA)
    prevalence: dict[Label, float] = Field(default_factory=dict)
    strength: dict[Modality, float] = Field(
        default_factory=lambda: {Modality.CT: 1.5, Modality.CXR: 1.2, Modality.COUGH: 1.0}
    )
    correlation: float = Field(default=0.0, ge=0.0, le=0.95)
    shortcut: Modality | None = None
    shortcut_agreement: float = Field(default=0.9, ge=0.0, le=1.0)
    image_size: int = Field(default=192, ge=64, le=1024)
    seed: int = Field(default=17, ge=0, lt=2**31)
    missing: float = Field(default=0.0, ge=0.0, le=0.9)

    @model_validator(mode="after")
    def _consistent(self) -> SyntheticConfig:
        if len(set(self.classes)) != len(self.classes) or len(self.classes) < 2:
            raise ValueError("classes must name two classes or more, each once")
        if not set(self.classes) <= set(DRAWN):
            raise ValueError(f"classes must be among {', '.join(DRAWN)}")
        if self.prevalence and set(self.prevalence) != set(self.classes):
            raise ValueError("prevalence must name every class, and no other")
        if self.prevalence and min(self.prevalence.values()) <= 0:
            raise ValueError("prevalence must be above zero")
        if set(self.strength) != set(Modality) or min(self.strength.values()) < 0:
            raise ValueError("strength must name ct, cxr and cough, none below zero")
        return self

    @property
    def diseases(self) -> tuple[Label, ...]:
        """The classes that have a sign."""
        return tuple(label for label in self.classes if label is not Label.NORMAL)

    @property
    def prior(self) -> NDArray[np.float64]:
        """Share of each class, in the order of `classes`; sums to 1."""
        shares = np.array([self.prevalence.get(label, 1.0) for label in self.classes])
        return np.asarray(shares / shares.sum(), np.float64)


@dataclass(frozen=True)
class Patient:
    """One drawn patient.

    Attributes:
        latents: z of each (modality, disease).
        present: modalities that the patient has records of.
        trait: class whose acquisition trait the patient's shortcut modality carries.
    """

    name: str
    label: Label
    age: float
    sex: str
    site: str
    latents: dict[tuple[Modality, Label], float]
    present: tuple[Modality, ...]
    trait: Label


def draw_patient(config: SyntheticConfig, index: int) -> Patient:
    """Patient `index` of a cohort; depends on nothing but the configuration and the index.

    Classes follow a quasi-random sequence, so that small cohorts keep their prevalences too.
    """
    rng = np.random.default_rng([config.seed, index])
    place = (0.5 + index * _GOLDEN) % 1.0
    label = config.classes[int(np.searchsorted(np.cumsum(config.prior)[:-1], place, "right"))]
    own, shared = np.sqrt(1 - config.correlation), np.sqrt(config.correlation)
    latents: dict[tuple[Modality, Label], float] = {}
    for disease in config.diseases:
        common = rng.standard_normal()
        for modality in Modality:
            mean = config.strength[modality] if disease is label else 0.0
            noise = shared * common + own * rng.standard_normal()
            latents[modality, disease] = float(mean + noise)
    kept = [m for m in Modality if rng.uniform() >= config.missing]
    spare = list(Modality)[int(rng.integers(len(Modality)))]
    others = [c for c in config.classes if c is not label]
    honest = rng.uniform() < config.shortcut_agreement
    trait = label if honest else others[int(rng.integers(len(others)))]
    return Patient(
        name=f"P{index + 1:05d}",
        label=label,
        age=float(np.clip(np.round(rng.normal(52, 17)), 18, 95)),
        sex="F" if rng.uniform() < 0.5 else "M",
        site="site_a" if rng.uniform() < 0.5 else "site_b",
        latents=latents,
        present=tuple(kept) or (spare,),
        trait=trait,
    )


def subsets() -> list[tuple[Modality, ...]]:
    """All seven non-empty subsets of the modalities, small ones first."""
    return [s for n in range(1, len(Modality) + 1) for s in combinations(Modality, n)]


def separation(config: SyntheticConfig, subset: tuple[Modality, ...]) -> float:
    """Delta of a subset: the Mahalanobis distance between a disease and its absence."""
    d = np.array([config.strength[m] for m in subset])
    n = len(subset)
    sigma = np.full((n, n), config.correlation) + (1 - config.correlation) * np.eye(n)
    return float(np.sqrt(d @ np.linalg.solve(sigma, d)))


def target_classes(config: SyntheticConfig, mapping: Mapping[Label, str] | None) -> list[str]:
    """Classes of a study that the cohort has patients of; see `oracle_auc` for the mapping."""
    if mapping is None:
        return [label.value for label in config.classes]
    return list(dict.fromkeys(mapping[label] for label in config.classes if label in mapping))


def oracle_auc(
    config: SyntheticConfig,
    mapping: Mapping[Label, str] | None = None,
    positive: str | None = None,
) -> dict[str, float]:
    """ROC-AUC of the best possible reader for each of the seven subsets of modalities.

    Args:
        config: the cohort.
        mapping: class of a study for each label (labels outside it are left out); None keeps the
            cohort's own classes.
        positive: class whose AUC is wanted; None means the macro mean of one versus rest.

    Raises:
        ValueError: the mapping leaves fewer than two classes, or `positive` is not one of them.

    Returns:
        {"ct": auc, ..., "ct+cxr+cough": auc}, by Monte Carlo over the sufficient statistics, with
        the same draws for every subset.
    """
    names = {label: label.value for label in config.classes} if mapping is None else mapping
    kept = [i for i, label in enumerate(config.classes) if label in names]
    groups = target_classes(config, mapping)
    if len(groups) < 2:
        raise ValueError("an AUC needs two classes or more")
    member = np.array([[names[config.classes[i]] == g for g in groups] for i in kept], float)
    wanted = [groups.index(positive)] if positive is not None else range(len(groups))
    rng = np.random.default_rng(_ORACLE_SEED)
    prior = config.prior[kept] / config.prior[kept].sum()
    y = rng.choice(len(kept), size=_ORACLE_DRAWS, p=prior)
    noise = rng.standard_normal((_ORACLE_DRAWS, len(config.diseases)))
    out: dict[str, float] = {}
    for subset in subsets():
        posterior = _posterior(config, separation(config, subset), np.array(kept)[y], noise)
        p = posterior[:, kept] @ member
        truth = member[y] > 0
        aucs = [_auc(p[:, g] / p.sum(1), truth[:, g]) for g in wanted]
        out[subset_name(subset)] = float(np.mean(aucs))
    return out


def _posterior(
    config: SyntheticConfig, delta: float, y: NDArray[np.int64], noise: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Posterior (draws, classes) given the sufficient statistics of draws with class index y."""
    logits = np.tile(np.log(config.prior), (y.size, 1))
    for k, disease in enumerate(config.diseases):
        column = config.classes.index(disease)
        t = delta**2 * (y == column) + delta * noise[:, k]
        logits[:, column] += t - delta**2 / 2
    likelihood = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(likelihood / likelihood.sum(axis=1, keepdims=True))


def _auc(score: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """ROC-AUC as the Mann-Whitney statistic, ties counted half."""
    from scipy.stats import rankdata

    n_pos = int(positive.sum())
    n_neg = positive.size - n_pos
    ranks = rankdata(score)
    return float((ranks[positive].sum() - n_pos * (n_pos + 1) / 2) / (n_pos * n_neg))
