"""The predictor: a bundle in, probabilities out, for any non-empty subset of the modalities.

predictor = Predictor.load(Path("runs/demo/bundle"))
predictor.predict(ct="slice.png", cough="cough.wav").probabilities
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pulmofuse.errors import BundleError
from pulmofuse.fusion import RULES
from pulmofuse.inference.bundle import Bundle, load_bundle, subset_partition
from pulmofuse.inference.scoring import findings_probabilities
from pulmofuse.labelsets import members
from pulmofuse.models import frozen
from pulmofuse.preprocessing import prepare
from pulmofuse.schema import Modality, subset_name
from pulmofuse.training import Inferred, infer_records

#: The decision rule that needs no pairs and gives a calibrated posterior for any subset.
DEFAULT_METHOD = "log_odds"

FEATURE_METHOD = "gated_attention"


@dataclass(frozen=True)
class Prediction:
    """What the models say of one patient.

    Attributes:
        subset: modalities that were given, e.g. "ct+cough".
        method: how they were joined; "unimodal" for one.
        probabilities: class -> probability, summing to 1.
        predicted: the class at the study's operating point; "a|b" where the given modalities
            cannot tell a from b, and one of the two it is.
        threshold: operating point on the positive class; None where the largest p decides.
        by_modality: the same probabilities for each modality by itself.
        evidence: modality -> log-likelihood ratio for the positive (or predicted) class that the
            modality adds to the prior; positive speaks for the class.
        warnings: what the study's audit found about the modalities that were given.
        findings: finding -> probability that it is present in the X-ray, each by itself and not
            calibrated; empty without an X-ray, or where the study learnt none.
        research_use_only: always true.
        attention: modality -> weight of each slice or window that the model was shown, in order
            and summing to 1; only modalities whose model has attention.
    """

    subset: str
    method: str
    probabilities: dict[str, float]
    predicted: str
    threshold: float | None
    by_modality: dict[str, dict[str, float]]
    evidence: dict[str, float]
    warnings: tuple[str, ...]
    findings: dict[str, float] = field(default_factory=dict)
    research_use_only: bool = True
    attention: dict[str, list[float]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON value."""
        return asdict(self)


class Predictor:
    """Predictions from files, with the very preprocessing and models of the study."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self._models = {m: frozen(part.model) for m, part in bundle.unimodal.items()}

    @classmethod
    def load(cls, folder: Path | str) -> Predictor:
        """Read a bundle; see `load_bundle` for what can be wrong with it."""
        return cls(load_bundle(Path(folder)))

    def predict(
        self,
        *,
        ct: Path | str | bytes | None = None,
        cxr: Path | str | bytes | None = None,
        cough: Path | str | bytes | None = None,
        method: str = DEFAULT_METHOD,
    ) -> Prediction:
        """Predict from one file (path or content) of each modality at hand.

        Args:
            ct: a CT slice or volume (PNG, JPEG, DICOM, NIfTI).
            cxr: a frontal chest X-ray (PNG, JPEG, DICOM).
            cough: a cough recording (WAV, FLAC, OGG, MP3).
            method: a rule of `fusion.RULES`, or what the bundle has beside: its stacking
                ("stacking", "stacking_simulated") and "gated_attention".

        Raises:
            UnreadableFile: a file cannot be read.
            BundleError: nothing was given, or the bundle knows no such modality or method.
        """
        pairs = ((Modality.CT, ct), (Modality.CXR, cxr), (Modality.COUGH, cough))
        given = {modality: source for modality, source in pairs if source is not None}
        self._check(given, method)
        seen = {modality: self._score(modality, source) for modality, source in given.items()}
        p = {m: self.bundle.unimodal[m].calibrated(s.p)[0] for m, s in seen.items()}
        subset = subset_name(given)
        if len(given) == 1:
            method, fused = "unimodal", self._rebased(p)[next(iter(p))]
        elif method == FEATURE_METHOD:
            fused = self._fuse_features({m: s.features[0] for m, s in seen.items()}, subset)
        else:
            fused = self._fuse_decisions(p, method)
        attention = {
            m.value: s.attention.tolist() for m, s in seen.items() if s.attention is not None
        }
        described = self._describe(subset, method, fused, p, attention)
        return replace(described, findings=self._findings(seen))

    def _check(self, given: dict[Modality, Any], method: str) -> None:
        known = [m.value for m in self.bundle.unimodal]
        if not given:
            raise BundleError("prediction", "no file was given", f"give one of {', '.join(known)}")
        for modality in given:
            if modality not in self.bundle.unimodal:
                raise BundleError(
                    f"--{modality.value}",
                    f"this bundle has no {modality.value} model",
                    f"it reads {', '.join(known)}",
                )
        methods = list(self.bundle.decision.methods(RULES))
        if self.bundle.feature is not None:
            methods.append(FEATURE_METHOD)
        if method not in methods:
            raise BundleError(
                f"method {method!r}", "is not in this bundle", f"it knows {', '.join(methods)}"
            )

    def _score(self, modality: Modality, source: Path | str | bytes) -> Inferred:
        """What the model of a modality says of one file."""
        if isinstance(source, str):
            source = Path(source)
        preprocessing = self.bundle.unimodal[modality].config.preprocessing
        instances = prepare(source, modality, preprocessing).instances
        n = len(instances)
        return infer_records(self._models[modality], instances, np.arange(n), np.array([n]))

    def _stacked(self, p: dict[Modality, np.ndarray]) -> np.ndarray:
        """(1, modalities, classes); an absent modality is uniform, and never read."""
        k = len(self.bundle.classes)
        modalities = self.bundle.decision.modalities
        return np.stack([p.get(m, np.full(k, 1 / k)) for m in modalities])[None]

    def _rebased(self, p: dict[Modality, np.ndarray]) -> dict[Modality, np.ndarray]:
        """Each given modality's probabilities under the prior of the fused population."""
        decision = self.bundle.decision
        rebased = decision.rebase(self._stacked(p))[0]
        return {m: row for m, row in zip(decision.modalities, rebased, strict=True) if m in p}

    def _fuse_decisions(self, p: dict[Modality, np.ndarray], method: str) -> np.ndarray:
        decision = self.bundle.decision
        present = np.array([[m in p for m in decision.modalities]])
        return np.asarray(decision.apply(method, self._stacked(p), present)[0])

    def _fuse_features(self, features: dict[Modality, np.ndarray], subset: str) -> np.ndarray:
        feature = self.bundle.feature
        assert feature is not None  # noqa: S101  # `_check` refused the method otherwise
        inputs = {
            m.value: torch.as_tensor(
                features.get(m, np.zeros(part.model.feature_dim)), dtype=torch.float32
            )[None]
            for m, part in self.bundle.unimodal.items()
        }
        present = torch.tensor([[m in features for m in self.bundle.unimodal]])
        with torch.inference_mode():
            raw = feature.model.eval()(inputs, present).double().softmax(dim=1).numpy()
        return np.asarray(feature.calibration[subset].apply(raw)[0])

    def _findings(self, seen: dict[Modality, Inferred]) -> dict[str, float]:
        """What the models of the given modalities say of findings."""
        found: dict[str, float] = {}
        for modality, inferred in seen.items():
            model = self._models[modality]
            names = tuple(finding.value for finding in model.findings)
            found |= _named(names, findings_probabilities(model, inferred.features)[0])
        return found

    def _describe(
        self,
        subset: str,
        method: str,
        fused: np.ndarray,
        p: dict[Modality, np.ndarray],
        attention: dict[str, list[float]],
    ) -> Prediction:
        classes, positive = self.bundle.classes, self.bundle.positive
        told_apart = subset_partition((self.bundle.unimodal[m] for m in p), classes)
        threshold = self.bundle.thresholds.get(f"{subset}|{method}")
        if positive is not None and threshold is not None:
            i = classes.index(positive)
            predicted = positive if fused[i] >= threshold else classes[1 - i]
        else:
            predicted = told_apart.names[int(told_apart.collapse(fused).argmax())]
        target = [classes.index(name) for name in members(positive or predicted)]
        priors = dict(
            zip(self.bundle.decision.modalities, self.bundle.decision.modality_priors, strict=True)
        )
        return Prediction(
            subset=subset,
            method=method,
            probabilities=_named(classes, fused),
            predicted=predicted,
            threshold=threshold,
            by_modality={m.value: _named(classes, v) for m, v in self._rebased(p).items()},
            evidence={
                m.value: _evidence(values[target].sum(), priors[m][target].sum())
                for m, values in p.items()
            },
            warnings=tuple(
                warning["text"]
                for warning in self.bundle.facts.get("warnings", ())
                if not warning["modality"] or Modality(warning["modality"]) in p
            ),
            attention=attention,
        )


def _named(classes: tuple[str, ...], p: np.ndarray) -> dict[str, float]:
    return {name: float(value) for name, value in zip(classes, p, strict=True)}


def _evidence(p: float, prior: float) -> float:
    """Log-likelihood ratio that turns `prior` into `p`, bounded as the probabilities are."""
    clipped = np.clip([p, prior], 1e-6, 1 - 1e-6)
    odds = np.log(clipped / (1 - clipped))
    return float(odds[0] - odds[1])
