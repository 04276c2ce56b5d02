"""The configuration of a study: one tree, read from YAML, with every default in it.

    config = load_config(Path("studies/covid.yaml"), ["ct.training.epochs=5"])

An unknown key is an error that names the line and the nearest right key.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from pulmofuse.config.base import Node, Seed, Text
from pulmofuse.config.data import AuditConfig, CleaningConfig, SourceConfig, SplitConfig, Target
from pulmofuse.config.models import CoughConfig, CtConfig, CxrConfig, FusionTraining
from pulmofuse.config.pretrain import PretrainConfig
from pulmofuse.errors import ConfigError
from pulmofuse.schema import Modality
from pulmofuse.yamltree import apply_override, explain, read_yaml


class FusionConfig(Node):
    """How the modalities are joined.

    `patients`: "paired" joins the records of one patient; "simulated" joins records of one class
    and split (and says so on every row); "auto" takes true pairs where the data have them.
    `stacking` learns the modalities' weights from true pairs in validation: "auto" where there are
    enough, "paired" stops where there are not, "simulated" then takes simulated patients (and the
    method's name says so), "none" leaves it out.
    `dependence_weight` is w of the log-odds rule: 1 is independence given the class.
    `dependence_rho` assumes that correlation between any two modalities given the class instead,
    and lets w follow from it for each number of modalities (`fusion.discount`).
    """

    patients: Literal["auto", "paired", "simulated"] = "auto"
    rules: tuple[Literal["mean", "weighted_mean", "product", "vote", "log_odds"], ...] = (
        "mean",
        "weighted_mean",
        "product",
        "vote",
        "log_odds",
    )
    stacking: Literal["auto", "paired", "simulated", "none"] = "auto"
    dependence_weight: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    dependence_rho: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    feature: FusionTraining | None = FusionTraining()

    @model_validator(mode="after")
    def _each_rule_once(self) -> FusionConfig:
        if len(set(self.rules)) != len(self.rules):
            raise ValueError("a rule is named twice in rules")
        return self

    @model_validator(mode="after")
    def _one_assumption(self) -> FusionConfig:
        if self.dependence_rho is not None and self.dependence_weight != 1.0:
            raise ValueError("give dependence_weight or dependence_rho, not both")
        return self


OpenFraction = Annotated[float, Field(gt=0.0, lt=1.0)]


class ThresholdTarget(Node):
    """An operating point that promises a sensitivity or a specificity on new patients.

    On average over validation sets, or with `confidence` for this share of them.
    """

    sensitivity: OpenFraction | None = None
    specificity: OpenFraction | None = None
    confidence: OpenFraction | None = None


class ConformalConfig(Node):
    """Prediction sets. `coverage`: share of each class's patients whose set holds their class."""

    coverage: Annotated[float, Field(ge=0.5, lt=1.0)] = 0.9


class EvaluationConfig(Node):
    """Statistics of the report.

    `threshold`: how the operating point of two classes is set. `power_frame`: label file, relative
    to the data root, of the people by whom the power statement counts.
    """

    bootstrap: Annotated[int, Field(ge=100)] = 2000
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    calibration: Literal["temperature", "vector", "isotonic", "beta", "auto"] = "vector"
    threshold: Literal["argmax", "youden", "youden_bagged"] | ThresholdTarget = "youden_bagged"
    deployment_prevalence: OpenFraction | None = None
    conformal: ConformalConfig | None = ConformalConfig()
    explain_examples: Annotated[int, Field(ge=0, le=24)] = 6
    controls: bool = True
    power_frame: Text | None = None
    fusion_controls: bool = True
    prevalences: tuple[Annotated[float, Field(gt=0.0, lt=1.0)], ...] = (0.02, 0.10, 0.30)

    @property
    def calibration_kinds(self) -> str | tuple[str, ...]:
        """The kind of calibration, or those to choose from, the simplest first."""
        if self.calibration != "auto":
            return self.calibration
        smooth = ("temperature", "vector", "beta")
        return (*smooth, "isotonic") if self.conformal is None else smooth

    @model_validator(mode="after")
    def _sets_keep_their_promise(self) -> EvaluationConfig:
        """An isotonic map fits its own rows too well for sets that are cut on the same rows."""
        if self.calibration == "isotonic" and self.conformal is not None:
            raise ValueError(
                "an isotonic map cost prediction sets up to 5.7 points of their coverage when this"
                " was measured (docs/calibration.md);"
                " set conformal to null, or calibration to beta"
            )
        return self

    @field_validator("threshold", mode="before")
    @classmethod
    def _threshold_is_a_choice_or_one_target(cls, given: Any) -> Any:
        """Say in one sentence what would do; the errors of a union speak of each alternative."""
        if isinstance(given, dict):
            targets = [key for key in ("sensitivity", "specificity") if given.get(key) is not None]
            right = len(targets) == 1 and set(given) <= set(ThresholdTarget.model_fields)
            right = right and all(v is None or _is_open_fraction(v) for v in given.values())
        else:
            right = isinstance(given, ThresholdTarget) or given in _THRESHOLDS
        if not right:
            raise ValueError(
                f"should be {', '.join(_THRESHOLDS)}, or a mapping of sensitivity or specificity"
                " (and confidence, if wanted) to numbers between 0 and 1"
            )
        return given


_THRESHOLDS = ("argmax", "youden", "youden_bagged")


def _is_open_fraction(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1


class StudyConfig(Node):
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
    pretrain: PretrainConfig = PretrainConfig()
    fusion: FusionConfig = FusionConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _power_of_two_classes(self) -> StudyConfig:
        if self.evaluation.power_frame is not None and len(self.target.classes) != 2:
            raise ValueError("evaluation.power_frame counts positives, and needs two classes")
        return self

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
    tree = config.model_dump(mode="json")
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Quotes the line breaks of Unicode, which PyYAML writes as they are and folds on reading."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = '"' if _BREAKS.intersection(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_BREAKS = frozenset("\x85\u2028\u2029")
_Dumper.add_representer(str, _text)
