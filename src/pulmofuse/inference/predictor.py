"""The predictor: a bundle in, probabilities out, for any non-empty subset of the modalities.

predictor = Predictor.load(Path("runs/demo/bundle"))
predictor.predict(ct="slice.png", cough="cough.wav").probabilities
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from pulmofuse.errors import BundleError, InputRefused
from pulmofuse.evaluation import conformal_sets, reweight, with_prevalence
from pulmofuse.fusion import RULES
from pulmofuse.inference.bundle import Bundle, load_bundle, subset_partition
from pulmofuse.inference.gate import GATE_MODES, Gate, GateMode, GateRemark, refusal
from pulmofuse.inference.run_models import RunModels
from pulmofuse.inference.scoring import findings_probabilities
from pulmofuse.io import Image, Sound, image_from_array, sound_from_array
from pulmofuse.labelsets import members
from pulmofuse.models import Inferred, infer_records, patient_probabilities, patient_vector
from pulmofuse.preprocessing import Prepared, prepare
from pulmofuse.schema import Modality, subset_name

#: What can be given as an image, and as a recording; see `Predictor.predict`.
GivenImage = Path | str | bytes | np.ndarray | Image
GivenSound = Path | str | bytes | tuple[np.ndarray, int] | Sound

#: The decision rule that needs no pairs and gives a calibrated posterior for any subset.
DEFAULT_METHOD = "log_odds"


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
        prediction_set: classes that the patient may have, a set that holds the true one for the
            share `coverage` of the patients of each class. It may be empty (unlike the usual
            patients of every class); None where the study made no sets.
        coverage: what the set promises; None without one.
        prevalence: share of the positive class that the probabilities and the threshold are given
            for; None for that of the study.
        quality: what the input gate says of the files that were given, each a `GateRemark` as a
            dictionary; empty where the gate was off.
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
    prediction_set: tuple[str, ...] | None = None
    coverage: float | None = None
    prevalence: float | None = None
    quality: tuple[dict[str, str], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON value."""
        return asdict(self)


class Predictor:
    """Predictions from files, with the very preprocessing and models of the study."""

    def __init__(self, bundle: Bundle, runtime: str = "auto") -> None:
        self.bundle = bundle
        self._gate = Gate(bundle.gates)
        self._models = RunModels(bundle, runtime)

    @classmethod
    def load(cls, folder: Path | str, runtime: str = "auto") -> Predictor:
        """Read a bundle; see `load_bundle` for what can be wrong with it.

        Args:
            folder: of the bundle.
            runtime: what runs the networks; see `inference.runtime`. A network is made ready at
                its first use, which takes "torch" no time and any other some seconds.

        Raises:
            RuntimeUnavailable: there is no such runtime, or it is not installed.
        """
        return cls(load_bundle(Path(folder)), runtime)

    def predict(
        self,
        *,
        ct: GivenImage | None = None,
        cxr: GivenImage | None = None,
        cough: GivenSound | None = None,
        method: str = DEFAULT_METHOD,
        prevalence: float | None = None,
        gate: GateMode = "refuse",
    ) -> Prediction:
        """Predict from one file (path or content) or array of each modality at hand.

        Args:
            ct: a CT slice or volume (PNG, JPEG, DICOM, NIfTI), or an array as
                `io.image_from_array` takes it; of Hounsfield units what that gives.
            cxr: a frontal chest X-ray (PNG, JPEG, DICOM), or an array (height, width).
            cough: a cough recording (WAV, FLAC, OGG, MP3), or its samples (n,) or (channels, n)
                and the sample rate in Hz.
            method: a rule of `fusion.RULES`, or what the bundle has beside: its stacking
                ("stacking", "stacking_simulated") and its feature-level fusions.
            prevalence: share of the positive class where the prediction is used, in (0, 1); the
                bundle's `deployment_prevalence`, else the share in the study, if not given.
                Probabilities and threshold move with it; the call of two classes, the evidence
                and the prediction set do not.
            gate: what becomes of a file that the model was not made for: "refuse" it, "warn" in
                `Prediction.quality`, or "off", do not look.

        Raises:
            UnreadableFile: a file cannot be read.
            InputRefused: a file is not what the model was made for.
            BundleError: nothing was given, or the bundle knows no such modality or method, or a
                prevalence is out of range or of no class.
            ValueError: there is no such `gate`.
        """
        if gate not in GATE_MODES:
            raise ValueError(f"gate {gate!r} is not one of {', '.join(GATE_MODES)}")
        pairs = ((Modality.CT, ct), (Modality.CXR, cxr), (Modality.COUGH, cough))
        given = {modality: source for modality, source in pairs if source is not None}
        self.check(given, method)
        ready = {modality: self.prepare(modality, source) for modality, source in given.items()}
        seen = {m: self.infer(m, [one])[0] for m, one in ready.items()}
        quality: list[GateRemark] = []
        for modality, source in given.items() if gate != "off" else ():
            remarks = self.inspect(modality, ready[modality], seen[modality])
            if gate == "refuse":
                _refuse(modality, source, remarks)
            quality += remarks
        described = self.conclude(seen, method, prevalence)
        return replace(described, quality=tuple(remark.to_dict() for remark in quality))

    def inspect(
        self, modality: Modality, prepared: Prepared, inferred: Inferred
    ) -> list[GateRemark]:
        """What the input gate says of one file; severity "refuse" is no input for the model."""
        return self._gate.check(modality, prepared, inferred.features[0])

    def prepare(
        self, modality: Modality, source: GivenImage | GivenSound, name: str | None = None
    ) -> Prepared:
        """One file or array as the model of its modality reads it; `name` is for errors.

        Raises:
            UnreadableFile: the file cannot be read.
        """
        config = self.bundle.unimodal[modality].config.preprocessing
        return prepare(_readable(modality, source), modality, config, name)

    def infer(self, modality: Modality, prepared: Sequence[Prepared]) -> list[Inferred]:
        """What the model of a modality says of each of several files, in one go."""
        counts = np.array([len(one.instances) for one in prepared])
        instances = np.concatenate([one.instances for one in prepared])
        together = infer_records(
            self._models[modality], instances, np.arange(len(instances)), counts
        )
        ends = np.cumsum(counts)
        return [
            Inferred(
                together.p[i : i + 1],
                together.features[i : i + 1],
                None if together.attention is None else together.attention[end - n : end],
                None if together.log_weight is None else together.log_weight[i : i + 1],
            )
            for i, (n, end) in enumerate(zip(counts, ends, strict=True))
        ]

    def conclude(
        self,
        seen: Mapping[Modality, Inferred],
        method: str = DEFAULT_METHOD,
        prevalence: float | None = None,
    ) -> Prediction:
        """The prediction of one patient from what `infer` gave of each modality at hand.

        Args:
            seen: of each modality one file, or several that `training.joined` put together; these
                count as they do for a patient of the study.
            method: as in `predict`.
            prevalence: as in `predict`.

        Raises:
            BundleError: the prevalence is out of range, or of no class.
        """
        given = list(seen)
        p = {
            m: patient_probabilities(self.bundle.unimodal[m].calibrated(s.p), s.log_weight)
            for m, s in seen.items()
        }
        features = {m: patient_vector(s.features, s.log_weight) for m, s in seen.items()}
        subset = subset_name(given)
        if len(given) == 1:
            method, fused = "unimodal", self._rebased(p)[next(iter(p))]
        elif method in self.bundle.feature:
            fused = self._fuse_features(features, subset, method)
        else:
            fused = self._fuse_decisions(p, method)
        attention = {
            m.value: s.attention.tolist() for m, s in seen.items() if s.attention is not None
        }
        described = self._describe(subset, method, fused, p, attention)
        described = self._with_set(described, fused)
        if prevalence is None:
            prevalence = self.bundle.deployment_prevalence
        if prevalence is not None:
            described = self._carried(described, prevalence)
        return replace(described, findings=self._findings(features))

    def check(self, given: Collection[Modality], method: str) -> None:
        """Refuse what the bundle cannot do, before a file is read.

        Raises:
            BundleError: nothing was given, or the bundle knows no such modality or method.
        """
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
        if method not in self.methods:
            raise BundleError(
                f"method {method!r}", "is not in this bundle", f"it knows {', '.join(self.methods)}"
            )

    def check_prevalence(self, prevalence: float | None) -> None:
        """Refuse a share that is none, or of no class.

        Raises:
            BundleError: the prevalence is out of range, or the bundle has no positive class.
        """
        if prevalence is None:
            return
        if self.bundle.positive is None:
            raise BundleError("prevalence", "this bundle has no positive class", "give none")
        if not 0 < prevalence < 1:
            raise BundleError(f"prevalence {prevalence}", "is no share", "give 0.02 for 2 %")

    @property
    def methods(self) -> tuple[str, ...]:
        """How several modalities can be joined."""
        others = (rule for rule in RULES if rule != DEFAULT_METHOD)
        rules = self.bundle.decision.methods((DEFAULT_METHOD, *others))
        return (*rules, *self.bundle.feature)

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

    def _fuse_features(
        self, features: dict[Modality, np.ndarray], subset: str, method: str
    ) -> np.ndarray:
        feature = self.bundle.feature[method]
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

    def _findings(self, seen: Mapping[Modality, np.ndarray]) -> dict[str, float]:
        """What the models of the given modalities say of findings."""
        found: dict[str, float] = {}
        for modality, features in seen.items():
            model = self._models[modality]
            names = tuple(finding.value for finding in model.findings)
            found |= _named(names, findings_probabilities(model, features[None])[0])
        return found

    def _with_set(self, described: Prediction, fused: np.ndarray) -> Prediction:
        """The prediction with its set.

        Sets are cut under the study's prior, as they were fitted: a promise per class holds
        at any prevalence.
        """
        conformal, key = self.bundle.conformal, f"{described.subset}|{described.method}"
        if conformal is None or key not in conformal.thresholds:
            return described
        limits, classes = conformal.thresholds[key], self.bundle.classes
        inside = conformal_sets([limits[name] for name in classes], fused[None])[0]
        notes = tuple(
            f"too few validation patients of {name}: every prediction set holds it"
            for name in classes
            if limits[name] is None
        )
        return replace(
            described,
            prediction_set=tuple(n for n, held in zip(classes, inside, strict=True) if held),
            coverage=conformal.coverage,
            warnings=described.warnings + notes,
        )

    def _carried(self, described: Prediction, prevalence: float) -> Prediction:
        """The prediction under another prevalence, with the threshold carried along."""
        self.check_prevalence(prevalence)
        classes, positive = self.bundle.classes, self.bundle.positive
        assert positive is not None  # noqa: S101  # it has just been checked
        i, prior = classes.index(positive), self.bundle.decision.prior
        there = with_prevalence(prior, i, prevalence)

        def carry(p: dict[str, float]) -> dict[str, float]:
            return _named(classes, reweight([p[name] for name in classes], prior, there))

        probabilities, threshold = carry(described.probabilities), described.threshold
        if threshold is not None:
            # A threshold just above 1 calls nobody positive, there as here.
            bounded = min(threshold, 1.0)
            moved = {classes[1 - i]: 1 - bounded, positive: bounded}
            threshold = carry(moved)[positive] if threshold <= 1 else threshold
        predicted = described.predicted
        if threshold is None:
            predicted = self._most_probable(described.by_modality, list(probabilities.values()))
        return replace(
            described,
            probabilities=probabilities,
            predicted=predicted,
            threshold=threshold,
            by_modality={m: carry(p) for m, p in described.by_modality.items()},
            prevalence=prevalence,
        )

    def _most_probable(self, given: Iterable[str], p: ArrayLike) -> str:
        """The most probable class, or part of the classes that these modalities tell apart."""
        parts = (self.bundle.unimodal[Modality(m)] for m in given)
        told_apart = subset_partition(parts, self.bundle.classes)
        return told_apart.names[int(told_apart.collapse(np.asarray(p)).argmax())]

    def _describe(
        self,
        subset: str,
        method: str,
        fused: np.ndarray,
        p: dict[Modality, np.ndarray],
        attention: dict[str, list[float]],
    ) -> Prediction:
        classes, positive = self.bundle.classes, self.bundle.positive
        threshold = self.bundle.thresholds.get(f"{subset}|{method}")
        if positive is not None and threshold is not None:
            i = classes.index(positive)
            predicted = positive if fused[i] >= threshold else classes[1 - i]
        else:
            predicted = self._most_probable(p, fused)
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


def _readable(modality: Modality, source: GivenImage | GivenSound) -> Path | bytes | Image | Sound:
    """What `prepare` reads: arrays as decoded images and sounds."""
    match source:
        case str():
            return Path(source)
        case (samples, rate):
            return sound_from_array(samples, rate)
        case np.ndarray() if modality is Modality.COUGH:
            why = "is an array without a sample rate"
            raise InputRefused("cough", why, "give (samples, sample_rate_hz)")
        case np.ndarray():
            return image_from_array(source)
    return source


def _refuse(modality: Modality, source: GivenImage | GivenSound, remarks: list[GateRemark]) -> None:
    """Raise what the gate refuses."""
    refused = refusal(remarks)
    if refused is not None:
        what = str(source) if isinstance(source, Path | str) else "data in memory"
        raise InputRefused(f"{what} (as {modality.value})", *refused)


def _named(classes: tuple[str, ...], p: np.ndarray) -> dict[str, float]:
    return {name: float(value) for name, value in zip(classes, p, strict=True)}


def _evidence(p: float, prior: float) -> float:
    """Log-likelihood ratio that turns `prior` into `p`, bounded as the probabilities are."""
    clipped = np.clip([p, prior], 1e-6, 1 - 1e-6)
    odds = np.log(clipped / (1 - clipped))
    return float(odds[0] - odds[1])
