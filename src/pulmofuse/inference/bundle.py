"""The bundle: all that a prediction needs, as safetensors and JSON in one folder.

    bundle.json                      classes, priors, calibration, thresholds, configurations, facts
    ct.safetensors, cxr.…, cough.…   weights of each modality's model
    fusion-<method>.safetensors      weights of each feature-level fusion that the study trained
    gate-ct.safetensors, gate-cxr.…  where the features of training records lie (inference.gate)

Loading is strict: a file that is missing, damaged or does not fit its architecture is an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from pulmofuse.config import CoughConfig, CtConfig, CxrConfig
from pulmofuse.errors import BundleError
from pulmofuse.evaluation import CalibrationMap, Conformal, calibration_from_dict
from pulmofuse.files import atomic_path, write_json
from pulmofuse.fusion import Stacking, discount, fuse
from pulmofuse.inference.gate import GateStatistics, gate_to_json, load_gate, save_gate
from pulmofuse.labelsets import Partition
from pulmofuse.models import (
    Classifier,
    Ensemble,
    FusionHead,
    build_audio_model,
    build_ct_model,
    build_cxr_model,
    build_fusion,
    check_stages,
)
from pulmofuse.preprocessing.prepare import PREPROCESSING_VERSION
from pulmofuse.schema import Modality

FORMAT_VERSION = 3

_REMEDY = "make the bundle again with `pulmofuse study`"


@dataclass(frozen=True, eq=False)
class Unimodal:
    """The trained model of one modality with what belongs to it.

    Attributes:
        modality, config, model: the network, and what it was made from.
        calibration: of the network's own outputs.
        partition: parts of the study's classes that the outputs are of; None: one for each class.
        within: (classes,) prior by which a part's probability is divided among its classes; None
            where every part is one class.
    """

    modality: Modality
    config: CtConfig | CxrConfig | CoughConfig
    model: Classifier
    calibration: CalibrationMap
    partition: Partition | None = None
    within: np.ndarray | None = None

    def lift(self, p: np.ndarray) -> np.ndarray:
        """The network's (n, outputs) probabilities as those of the study's classes."""
        if self.partition is None or self.within is None:
            return p
        return self.partition.lift(p, self.within)

    def calibrated(self, raw: np.ndarray) -> np.ndarray:
        """Calibrated probabilities (n, classes) from what the network says."""
        return self.lift(self.calibration.apply(raw))


def subset_partition(parts: Iterable[Unimodal], classes: tuple[str, ...]) -> Partition:
    """What the models of some modalities can tell apart together."""
    own = [part.partition or Partition.fine(classes) for part in parts]
    return Partition.meet(own)


@dataclass(frozen=True, eq=False)
class DecisionFusion:
    """Constants of the decision-level rules; see `fusion.fuse`.

    Attributes:
        modalities: order of the second axis of every array.
        prior: (classes,) prior of the fused population.
        modality_priors: (modalities, classes) prior that each calibrated model assumes.
        auc_weights: (modalities,) weights of the weighted mean, chosen on validation data.
        dependence_weight: w of the log-odds rule where two or more modalities are present.
        dependence_rho: assumed correlation given the class, from which w follows by the number of
            modalities present (`fusion.discount`); None takes `dependence_weight`.
        stacking: the weights learned from patients with several modalities, if any were.
    """

    modalities: tuple[Modality, ...]
    prior: np.ndarray
    modality_priors: np.ndarray
    auc_weights: np.ndarray
    dependence_weight: float
    dependence_rho: float | None = None
    stacking: Stacking | None = None

    def methods(self, rules: Iterable[str]) -> tuple[str, ...]:
        """These rules, and the stacking where there is one."""
        return (*rules, *(() if self.stacking is None else (self.stacking.method,)))

    def weight(self, n_present: int) -> float:
        """W of the log-odds rule for so many modalities.

        One modality alone has nothing to depend on, so its evidence is never discounted.
        """
        if n_present < 2:
            return 1.0
        if self.dependence_rho is not None:
            return discount(n_present, self.dependence_rho)
        return self.dependence_weight

    def rebase(self, p: np.ndarray) -> np.ndarray:
        """Probabilities (n, modalities, classes) of each modality under the fused prior.

        The models' own priors differ with their data sets; without this a mean of two modalities,
        or one modality compared with a fusion, would differ by prior and not by evidence.
        """
        shifted = p * (self.prior / self.modality_priors)
        return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))

    def apply(self, rule: str, p: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Fuse (n, modalities, classes) by a rule, see `fusion.fuse`, or by the stacking's name."""
        constants = {"prior": self.prior, "modality_priors": self.modality_priors}
        if self.stacking is not None and rule == self.stacking.method:
            return self.stacking.apply(p, present, **constants)
        if rule != "log_odds":
            return fuse(rule, self.rebase(p), present, weights=self.auc_weights, **constants)
        counts = present.sum(axis=1)
        out = np.empty((len(p), p.shape[2]))
        for n_present in np.unique(counts):
            rows = counts == n_present
            w = np.full(p.shape[1], self.weight(int(n_present)))
            out[rows] = fuse(rule, p[rows], present[rows], weights=w, **constants)
        return out


@dataclass(frozen=True, eq=False)
class FeatureFusion:
    """A trained feature-level fusion and its calibration for each subset of modalities."""

    model: FusionHead
    hidden: int
    dropout: float
    modality_dropout: float
    calibration: dict[str, CalibrationMap]


@dataclass(frozen=True, eq=False)
class Bundle:
    """Everything that a prediction needs.

    Attributes:
        name, question: of the study.
        classes: in the order of the model outputs.
        positive: the class that thresholds are for; without effect with three or more classes.
        unimodal: the models, in the order ct, cxr, cough.
        decision: the decision-level rules.
        feature: method -> the feature-level fusion; empty where none was trained.
        thresholds: "subset|method" -> operating point on p of the positive class.
        facts: fingerprints, versions and the audit's warnings, as JSON values.
        conformal: prediction sets, if the study made them.
        deployment_prevalence: share of the positive class where predictions are made, in (0, 1);
            None for that of the study.
        gates: what the input gate knows of each modality; one without is not looked at.
    """

    name: str
    question: str
    classes: tuple[str, ...]
    positive: str | None
    unimodal: dict[Modality, Unimodal]
    decision: DecisionFusion
    feature: dict[str, FeatureFusion]
    thresholds: dict[str, float]
    facts: dict[str, Any] = field(default_factory=dict)
    conformal: Conformal | None = None
    deployment_prevalence: float | None = None
    gates: dict[Modality, GateStatistics] = field(default_factory=dict)


def build_model(
    modality: Modality, config: CtConfig | CxrConfig | CoughConfig, n_classes: int
) -> Classifier:
    """The untrained model of a modality, started from the weights that the configuration names.

    It is an `Ensemble` where the configuration wants more than one member.

    Raises:
        ConfigError: no such backbone, or it has fewer stages than shall be frozen.
        WeightsError: the starting weights are missing, damaged or do not fit.
    """
    size = config.training.members
    members = [_build_member(modality, config, n_classes) for _ in range(size)]
    check_stages(members[0], config.training)
    return members[0] if size == 1 else Ensemble(members)


def _build_member(
    modality: Modality, config: CtConfig | CxrConfig | CoughConfig, n_classes: int
) -> Classifier:
    if isinstance(config, CtConfig):
        return build_ct_model(config, n_classes)
    if isinstance(config, CxrConfig):
        return build_cxr_model(config, n_classes)
    assert modality is Modality.COUGH  # noqa: S101  # the union has three members
    return build_audio_model(config, n_classes)


def save_bundle(folder: Path, bundle: Bundle) -> None:
    """Write a bundle; while it is half-written it has no `bundle.json` and does not load."""
    (folder / "bundle.json").unlink(missing_ok=True)
    for stale in folder.glob("*.safetensors"):
        stale.unlink()
    for modality, part in bundle.unimodal.items():
        _save_weights(folder / f"{modality.value}.safetensors", part.model)
    for modality, statistics in bundle.gates.items():
        save_gate(folder, modality, statistics)
    for method, fusion in bundle.feature.items():
        _save_weights(_fusion_path(folder, method), fusion.model)
    write_json(folder / "bundle.json", _to_json(bundle))


def load_bundle(folder: Path) -> Bundle:
    """Read a bundle.

    Raises:
        BundleError: a file is missing or damaged, or of another format version.
        WeightsError: weights do not fit their architecture.
    """
    path = folder / "bundle.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content["format_version"]
    except FileNotFoundError:
        raise BundleError(
            folder, "is not a bundle: there is no bundle.json", "give the bundle/ folder of a study"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(path, f"is damaged ({error})", _REMEDY) from None
    if version != FORMAT_VERSION:
        raise BundleError(
            path, f"has format version {version}, this program reads {FORMAT_VERSION}", _REMEDY
        )
    prepared = content.get("preprocessing_version")
    if prepared != PREPROCESSING_VERSION:
        raise BundleError(
            path,
            f"was trained on files prepared by rules {prepared}, this program has"
            f" {PREPROCESSING_VERSION}",
            _REMEDY,
        )
    try:
        return _from_json(folder, content)
    except (AttributeError, KeyError, TypeError, ValueError, ValidationError) as error:
        raise BundleError(path, f"is damaged ({error!r})", _REMEDY) from None


def _to_json(bundle: Bundle) -> dict[str, Any]:
    decision = bundle.decision
    return {
        "format_version": FORMAT_VERSION,
        "preprocessing_version": PREPROCESSING_VERSION,
        "research_use_only": True,
        "name": bundle.name,
        "question": bundle.question,
        "classes": list(bundle.classes),
        "positive": bundle.positive,
        "unimodal": {
            modality.value: {
                "config": part.config.model_dump(mode="json"),
                "calibration": part.calibration.to_dict(),
                "feature_dim": part.model.feature_dim,
                "findings": [finding.value for finding in part.model.findings],
                "partition": None if part.partition is None else part.partition.parts,
                "within": None if part.within is None else part.within.tolist(),
            }
            for modality, part in bundle.unimodal.items()
        },
        "decision": {
            "prior": decision.prior.tolist(),
            "modality_priors": decision.modality_priors.tolist(),
            "auc_weights": decision.auc_weights.tolist(),
            "dependence_weight": decision.dependence_weight,
            "dependence_rho": decision.dependence_rho,
            "stacking": None if decision.stacking is None else decision.stacking.to_dict(),
        },
        "feature": {
            method: {
                "hidden": feature.hidden,
                "dropout": feature.dropout,
                "modality_dropout": feature.modality_dropout,
                "calibration": {k: c.to_dict() for k, c in feature.calibration.items()},
            }
            for method, feature in bundle.feature.items()
        },
        "thresholds": bundle.thresholds,
        "conformal": None if bundle.conformal is None else bundle.conformal.to_dict(),
        "deployment_prevalence": bundle.deployment_prevalence,
        "gate": {m.value: gate_to_json(bundle.gates.get(m)) for m in bundle.unimodal},
        "facts": bundle.facts,
    }


def _from_json(folder: Path, content: Mapping[str, Any]) -> Bundle:
    classes = tuple(content["classes"])
    parsers: dict[Modality, type[CtConfig | CxrConfig | CoughConfig]] = {
        Modality.CT: CtConfig,
        Modality.CXR: CxrConfig,
        Modality.COUGH: CoughConfig,
    }
    unimodal: dict[Modality, Unimodal] = {}
    for modality in Modality:
        part = content["unimodal"].get(modality.value)
        if part is None:
            continue
        config = parsers[modality].model_validate(part["config"])
        # The bundle brings its own weights: starting weights would be read for nothing.
        blank = config.model_copy(
            update={"model": config.model.model_copy(update={"weights": "none"})}
        )
        partition, within = _load_partition(part, classes)
        n_outputs = len(classes) if partition is None else len(partition.parts)
        model = build_model(modality, blank, n_outputs)
        findings = part.get("findings", [])  # bundles of before have none
        if findings:
            model.learn_findings(findings)
        _load_weights(folder / f"{modality.value}.safetensors", model)
        calibration = calibration_from_dict(part["calibration"])
        unimodal[modality] = Unimodal(modality, config, model, calibration, partition, within)
    decision = content["decision"]
    stacking = decision.get("stacking")  # bundles of before have none
    # Bundles of before have neither of these two.
    sets, prevalence = content.get("conformal"), content.get("deployment_prevalence")
    if prevalence is not None and not 0 < prevalence < 1:
        raise BundleError("deployment_prevalence", f"is {prevalence}, no share", _REMEDY)
    return Bundle(
        name=content["name"],
        question=content["question"],
        classes=classes,
        positive=content["positive"],
        unimodal=unimodal,
        decision=DecisionFusion(
            modalities=tuple(unimodal),
            prior=np.array(decision["prior"], dtype=float),
            modality_priors=np.array(decision["modality_priors"], dtype=float),
            auc_weights=np.array(decision["auc_weights"], dtype=float),
            dependence_weight=float(decision["dependence_weight"]),
            dependence_rho=decision.get("dependence_rho"),  # bundles of before have none
            stacking=None
            if stacking is None
            else Stacking.from_dict(stacking, len(unimodal), len(classes)),
        ),
        feature={
            method: _load_feature(folder, method, fusion, unimodal, len(classes))
            for method, fusion in content["feature"].items()
        },
        thresholds={key: float(value) for key, value in content["thresholds"].items()},
        facts=dict(content["facts"]),
        conformal=None if sets is None else Conformal.from_dict(sets, classes),
        deployment_prevalence=prevalence,
        # A modality without statistics says so; one that is not named is a damaged bundle.
        gates={
            m: load_gate(folder, m, content["gate"][m.value], part.model.feature_dim)
            for m, part in unimodal.items()
            if content["gate"][m.value] is not None
        },
    )


def _load_partition(
    part: Mapping[str, Any], classes: tuple[str, ...]
) -> tuple[Partition | None, np.ndarray | None]:
    """The parts of the classes that a model's outputs are of, and the prior within them."""
    parts, prior = part.get("partition"), part.get("within")  # bundles of before have none
    if parts is None or prior is None:
        if parts is not prior:
            raise ValueError("a partition and the prior within it go together")
        return None, None
    partition, within = Partition(classes, tuple(map(tuple, parts))), np.array(prior, dtype=float)
    if sorted(name for own in partition.parts for name in own) != sorted(classes):
        raise ValueError("a partition does not hold every class once")
    if within.shape != (len(classes),) or not (np.isfinite(within) & (within > 0)).all():
        raise ValueError("a prior within the parts is not positive")
    return partition, within


def _load_feature(
    folder: Path,
    method: str,
    content: Mapping[str, Any],
    unimodal: Mapping[Modality, Unimodal],
    n_classes: int,
) -> FeatureFusion:
    dims = {m.value: part.model.feature_dim for m, part in unimodal.items()}
    model = build_fusion(
        method, dims, n_classes, content["hidden"], content["dropout"], content["modality_dropout"]
    )
    _load_weights(_fusion_path(folder, method), model)
    calibration = {k: calibration_from_dict(c) for k, c in content["calibration"].items()}
    return FeatureFusion(
        model, content["hidden"], content["dropout"], content["modality_dropout"], calibration
    )


def _fusion_path(folder: Path, method: str) -> Path:
    return folder / f"fusion-{method}.safetensors"


def _save_weights(path: Path, model: nn.Module) -> None:
    state = {k: v.detach().cpu().contiguous().clone() for k, v in model.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(state, temporary)


def _load_weights(path: Path, model: nn.Module) -> None:
    try:
        state: dict[str, torch.Tensor] = load_file(path)
    except FileNotFoundError:
        raise BundleError(path, "is missing", _REMEDY) from None
    except (OSError, SafetensorError) as error:
        raise BundleError(path, f"is damaged ({error})", _REMEDY) from None
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        why = str(error).splitlines()[-1].strip()
        raise BundleError(path, f"does not fit its architecture ({why})", _REMEDY) from None
    model.eval()
