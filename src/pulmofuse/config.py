"""The configuration of a study: one tree, read from YAML, with every default in it.

    config = load_config(Path("studies/covid.yaml"), ["ct.training.epochs=5"])

An unknown key is an error that names the line and the nearest right key.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pulmofuse.errors import ConfigError
from pulmofuse.schema import Label, Modality, Oddity
from pulmofuse.yamltree import apply_override, explain, read_yaml

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Text = Annotated[str, Field(min_length=1)]
ClassName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]


class _Node(BaseModel):
    """A part of the tree: frozen, closed to unknown keys, and without infinite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Target(_Node):
    """What is to be detected.

    `classes` are the study's own names, in the order of the model's outputs. `mapping` sends the
    labels of the data sets to them; a record whose label is not in it is left out and counted.
    """

    classes: Annotated[tuple[ClassName, ...], Field(min_length=2)] = ("not_covid19", "covid19")
    positive: str | None = "covid19"
    mapping: dict[Label, str] = Field(
        default_factory=lambda: {
            Label.COVID19: "covid19",
            Label.NOT_COVID19: "not_covid19",
            Label.NORMAL: "not_covid19",
            Label.PNEUMONIA: "not_covid19",
            Label.TUBERCULOSIS: "not_covid19",
            Label.CHRONIC_LUNG_DISEASE: "not_covid19",
            Label.OTHER_ABNORMAL: "not_covid19",
        }
    )

    @model_validator(mode="after")
    def _consistent(self) -> Target:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("a class is named twice in classes")
        if any(name.startswith("raw_") for name in self.classes):
            # Its column p_raw_… would be taken for the uncalibrated column of another class.
            raise ValueError("a class must not be named raw_…")
        strangers = sorted(set(self.mapping.values()) - set(self.classes))
        if strangers:
            raise ValueError(f"mapping names {', '.join(strangers)}, which classes does not")
        unreached = sorted(set(self.classes) - set(self.mapping.values()))
        if unreached:
            raise ValueError(f"no label is mapped to {', '.join(unreached)}")
        if self.positive is not None and self.positive not in self.classes:
            raise ValueError(f"positive is {self.positive!r}, which classes does not name")
        if self.positive is None and len(self.classes) == 2:
            raise ValueError("a target of two classes must say which one is positive")
        return self


class SourceConfig(_Node):
    """One data set: its name in `sources.SOURCES` and its folder below the data root."""

    name: Text
    root: Text = "."


class SplitConfig(_Node):
    """How patients (never files) are dealt to train, val and test.

    `stratified` keeps a published split and deals the others by `test` and `val`; `kfold` tests on
    fold `fold` of `folds`; `held_out` tests on the named sources or sites; `time` tests on the
    newest patients. The last three pass over published splits.
    """

    method: Literal["stratified", "kfold", "held_out", "time"] = "stratified"
    test: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    val: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.15
    folds: Annotated[int, Field(ge=2)] = 5
    fold: Annotated[int, Field(ge=0)] = 0
    held_out: tuple[Text, ...] = ()

    @model_validator(mode="after")
    def _fits_the_method(self) -> SplitConfig:
        if self.fold >= self.folds:
            raise ValueError(f"fold counts from 0 to {self.folds - 1}")
        if (self.method == "held_out") != bool(self.held_out):
            raise ValueError("held_out names sources or sites, and goes with method: held_out")
        return self

    @model_validator(mode="after")
    def _room_for_training(self) -> SplitConfig:
        if self.test + self.val >= 0.9:
            raise ValueError("test and val together must leave at least a tenth for training")
        return self


class CleaningConfig(_Node):
    """Odd files and copies that a study leaves out; of other oddities the report only speaks.

    Letters stand in most published chest images, and a clipped recording can still be a cough.
    `copies: keep` uses a data set as it was published, contradicting copies included: only to
    measure what they do to a figure.
    """

    copies: Literal["drop", "keep"] = "drop"
    exclude: tuple[Oddity, ...] = (
        Oddity.BLANK,
        Oddity.NOT_RADIOLOGY,
        Oddity.WRONG_MODALITY,
        Oddity.LATERAL,
        Oddity.NO_COUGH,
        Oddity.SPEECH,
    )


class AuditConfig(_Node):
    """What happens where the test set is known to the training set.

    `stop` ends the study; `drop` takes the known records out of training and validation; `accept`
    goes on, and every page of the report says so.
    """

    on_leak: Literal["stop", "drop", "accept"] = "stop"


class CtPreprocessing(_Node):
    """CT to uint8 slices: display window (Hounsfield data only), body crop, square resize."""

    size: Annotated[int, Field(ge=32, le=1024)] = 224
    window_level_hu: float = -600.0
    window_width_hu: Positive = 1500.0
    body_crop: bool = True
    max_slices: Count = 16


class CxrPreprocessing(_Node):
    """Chest X-ray to uint8: percentile normalisation, square resize."""

    size: Annotated[int, Field(ge=32, le=1024)] = 224
    low_percentile: Annotated[float, Field(ge=0.0, lt=50.0)] = 1.0
    high_percentile: Annotated[float, Field(gt=50.0, le=100.0)] = 99.0


class CoughPreprocessing(_Node):
    """Cough recording to windows of mono sound, and the spectral front end of the models.

    A recording is trimmed of silence (`trim_db` below its peak) and cut into at most
    `max_windows` windows of `duration_s`; the last one is padded with zeros.
    """

    sample_rate_hz: Annotated[int, Field(ge=4000, le=48000)] = 16000
    duration_s: Positive = 4.0
    max_windows: Count = 3
    trim_db: Positive = 40.0
    n_fft: Count = 512
    win_length: Count = 400
    hop_length: Count = 160
    n_mels: Count = 64
    n_mfcc: Count = 20
    f_min_hz: Annotated[float, Field(ge=0.0)] = 50.0
    f_max_hz: Positive = 8000.0

    @model_validator(mode="after")
    def _band(self) -> CoughPreprocessing:
        if not self.f_min_hz < self.f_max_hz <= self.sample_rate_hz / 2:
            raise ValueError("need f_min_hz < f_max_hz <= sample_rate_hz / 2")
        # The short-time Fourier transform mirrors half a frame at either end of the window.
        if self.duration_s * self.sample_rate_hz <= self.n_fft:
            raise ValueError("duration_s must hold more samples than n_fft")
        if self.win_length > self.n_fft:
            raise ValueError("win_length must not exceed n_fft")
        if self.n_mfcc > self.n_mels:
            raise ValueError("n_mfcc must not exceed n_mels")
        return self


class ImageAugmentation(_Node):
    """Random changes of training images; each is drawn per image."""

    rotate_deg: Annotated[float, Field(ge=0.0, le=180.0)] = 10.0
    translate: Fraction = 0.08
    scale: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.12
    shear_deg: Annotated[float, Field(ge=0.0, le=45.0)] = 5.0
    flip_horizontal: bool = False
    brightness: Fraction = 0.15
    contrast: Fraction = 0.2
    gamma: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.25
    noise: Fraction = 0.03
    cutout: Fraction = 0.25


class CoughAugmentation(_Node):
    """Random changes of training sounds (waveform) and of their spectrograms (SpecAugment)."""

    time_shift: Fraction = 0.2
    gain_db: Annotated[float, Field(ge=0.0)] = 6.0
    noise_snr_db: tuple[float, float] | None = (15.0, 40.0)
    time_mask: Fraction = 0.15
    frequency_mask: Fraction = 0.15

    @model_validator(mode="after")
    def _ordered(self) -> CoughAugmentation:
        if self.noise_snr_db is not None and self.noise_snr_db[0] > self.noise_snr_db[1]:
            raise ValueError("noise_snr_db must give the lower bound first")
        return self


class ImageModelConfig(_Node):
    """A backbone and a head. `weights`: "imagenet", "none", a file or a URL."""

    backbone: str = "efficientnet_lite0"
    weights: str = "imagenet"
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2


class CoughModelConfig(_Node):
    """Architecture of the cough model; `backbone` and `weights` are for spectrogram_cnn only."""

    architecture: Literal["spectrogram_cnn", "mfcc_lstm", "crnn"] = "spectrogram_cnn"
    backbone: str = "efficientnet_lite0"
    weights: str = "imagenet"
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.3
    hidden: Count = 64


class TrainingConfig(_Node):
    """Optimisation of one model: AdamW, one cycle, two learning-rate groups."""

    epochs: Count = 18
    batch_size: Count = 32
    lr_backbone: Positive = 4e-4
    lr_head: Positive = 2e-3
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.02
    warmup: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.05
    class_weights: bool = True
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.98
    patience: Count = 8
    gradient_clip: Positive = 1.0
    precision: Literal["bf16", "fp32"] = "bf16"


class CtConfig(_Node):
    """Everything about the CT model."""

    preprocessing: CtPreprocessing = CtPreprocessing()
    # A mirrored CT slice is still an axial slice of a chest; a mirrored X-ray is dextrocardia.
    augmentation: ImageAugmentation = ImageAugmentation(flip_horizontal=True)
    model: ImageModelConfig = ImageModelConfig()
    training: TrainingConfig = TrainingConfig()


class CxrConfig(_Node):
    """Everything about the chest X-ray model."""

    preprocessing: CxrPreprocessing = CxrPreprocessing()
    augmentation: ImageAugmentation = ImageAugmentation()
    model: ImageModelConfig = ImageModelConfig()
    training: TrainingConfig = TrainingConfig()


class CoughConfig(_Node):
    """Everything about the cough model."""

    preprocessing: CoughPreprocessing = CoughPreprocessing()
    augmentation: CoughAugmentation = CoughAugmentation()
    model: CoughModelConfig = CoughModelConfig()
    training: TrainingConfig = TrainingConfig()


class FusionTraining(_Node):
    """The feature-level fusion: gated attention over the features of the unimodal models."""

    hidden: Count = 64
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.3
    modality_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.3
    views: Count = 4
    training: TrainingConfig = TrainingConfig(
        epochs=30,
        batch_size=64,
        lr_backbone=1e-3,
        lr_head=1e-3,
        weight_decay=0.05,
        patience=10,
        ema_decay=0.9,
        precision="fp32",
    )


class FusionConfig(_Node):
    """How the modalities are joined.

    `patients`: "paired" joins the records of one patient; "simulated" joins records of one class
    and split (and says so on every row); "auto" takes true pairs where the data have them.
    `dependence_weight` is w of the log-odds rule: 1 is independence given the class.
    """

    patients: Literal["auto", "paired", "simulated"] = "auto"
    rules: tuple[Literal["mean", "weighted_mean", "log_odds"], ...] = (
        "mean",
        "weighted_mean",
        "log_odds",
    )
    dependence_weight: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    feature: FusionTraining | None = FusionTraining()

    @model_validator(mode="after")
    def _each_rule_once(self) -> FusionConfig:
        if len(set(self.rules)) != len(self.rules):
            raise ValueError("a rule is named twice in rules")
        return self


class EvaluationConfig(_Node):
    """Statistics of the report. `threshold`: how the operating point of two classes is set."""

    bootstrap: Annotated[int, Field(ge=100)] = 2000
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    threshold: Literal["argmax", "youden"] = "youden"
    explain_examples: Annotated[int, Field(ge=0, le=24)] = 6
    controls: bool = True


class StudyConfig(_Node):
    """A whole study."""

    name: Text
    question: Text
    seed: Seed = 17
    target: Target = Target()
    sources: Annotated[tuple[SourceConfig, ...], Field(min_length=1)]
    cleaning: CleaningConfig = CleaningConfig()
    split: SplitConfig = SplitConfig()
    audit: AuditConfig = AuditConfig()
    ct: CtConfig = CtConfig()
    cxr: CxrConfig = CxrConfig()
    cough: CoughConfig = CoughConfig()
    fusion: FusionConfig = FusionConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    def of(self, modality: Modality) -> CtConfig | CxrConfig | CoughConfig:
        """The part of the tree that belongs to one modality."""
        parts: dict[Modality, CtConfig | CxrConfig | CoughConfig] = {
            Modality.CT: self.ct,
            Modality.CXR: self.cxr,
            Modality.COUGH: self.cough,
        }
        return parts[modality]


def load_config(path: Path, overrides: Sequence[str] = ()) -> StudyConfig:
    """Read a study configuration from YAML.

    Args:
        path: the YAML file.
        overrides: "a.b=value" each, as given to `--set`; the value is read as YAML.

    Raises:
        ConfigError: no such file, not YAML, an unknown key, or a value out of range; the error
            names the line and, for a key, the nearest right one.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(path, "no such file", "give the path of a study in YAML") from None
    except IsADirectoryError:
        raise ConfigError(path, "is a folder", "give the path of a study in YAML") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(path, f"cannot be read ({error})", "give a UTF-8 YAML file") from None
    return parse_config(text, overrides, str(path))


def parse_config(text: str, overrides: Sequence[str] = (), name: str = "study") -> StudyConfig:
    """Build a study configuration from YAML text; see `load_config`."""
    node, tree = read_yaml(text, name)
    if not isinstance(tree, dict):
        raise ConfigError(name, "is not a mapping of keys to values", "see docs/configuration.md")
    for override in overrides:
        apply_override(tree, override)
    try:
        return StudyConfig.model_validate(tree)
    except ValidationError as error:
        raise explain(error, StudyConfig, node, overrides, name) from None


def dump_config(config: StudyConfig) -> str:
    """The resolved tree as YAML, every default written out."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
