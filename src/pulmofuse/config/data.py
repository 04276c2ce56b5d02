"""Which data a study takes, what it is to detect in them, and how they are split."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pulmofuse.config.base import ClassName, Node, Text
from pulmofuse.labelsets import set_name
from pulmofuse.schema import Label, Oddity


def _covid_against_the_rest() -> dict[Label, str | tuple[str, ...]]:
    return {
        Label.COVID19: "covid19",
        Label.NOT_COVID19: "not_covid19",
        Label.NORMAL: "not_covid19",
        Label.PNEUMONIA: "not_covid19",
        Label.TUBERCULOSIS: "not_covid19",
        Label.CHRONIC_LUNG_DISEASE: "not_covid19",
        Label.OTHER_ABNORMAL: "not_covid19",
    }


class Target(Node):
    """What is to be detected.

    `classes` are the study's own names, in the order of the model's outputs. `mapping` sends the
    labels of the data sets to them; a record whose label is not in it is left out and counted. A
    label may be sent to a list of classes, a set: it is one of these, and nobody knows which.
    """

    classes: Annotated[tuple[ClassName, ...], Field(min_length=2)] = ("not_covid19", "covid19")
    positive: str | None = "covid19"
    mapping: dict[Label, str | tuple[str, ...]] = Field(default_factory=_covid_against_the_rest)

    @model_validator(mode="after")
    def _consistent(self) -> Target:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("a class is named twice in classes")
        if any(name.startswith("raw_") for name in self.classes):
            # Its column p_raw_… would be taken for the uncalibrated column of another class.
            raise ValueError("a class must not be named raw_…")
        sets = {k: (v,) if isinstance(v, str) else v for k, v in self.mapping.items()}
        strangers = sorted({name for own in sets.values() for name in own} - set(self.classes))
        if strangers:
            raise ValueError(f"mapping names {', '.join(strangers)}, which classes does not")
        for label, own in sets.items():
            if len(set(own)) != len(own) or len(own) in {0, len(self.classes)}:
                raise ValueError(
                    f"mapping sends {label.value} to a set that names a class twice, is empty or"
                    " holds every class, which says nothing: leave the label out"
                )
        # A class that only sets name could be told from the others of its set by nobody.
        unreached = sorted(set(self.classes) - {own[0] for own in sets.values() if len(own) == 1})
        if unreached:
            raise ValueError(f"no label is mapped to {', '.join(unreached)}")
        if self.positive is not None and self.positive not in self.classes:
            raise ValueError(f"positive is {self.positive!r}, which classes does not name")
        if self.positive is None and len(self.classes) == 2:
            raise ValueError("a target of two classes must say which one is positive")
        return self

    @property
    def truth(self) -> dict[Label, str]:
        """What a label says in this study: a class, or a set of them as `labelsets.set_name`."""
        return {
            label: set_name((to,) if isinstance(to, str) else to, self.classes)
            for label, to in self.mapping.items()
        }

    @property
    def has_sets(self) -> bool:
        """Whether a label stands for a set of classes."""
        return not set(self.truth.values()) <= set(self.classes)


class SourceConfig(Node):
    """One data set: its name in `sources.SOURCES` and its folder below the data root."""

    name: Text
    root: Text = "."


class SplitConfig(Node):
    """How patients (never files) are dealt to train, val and test.

    `stratified` keeps a published split and deals the others by `test` and `val`; `kfold` tests on
    fold `fold` of `folds`; `held_out` tests on the named sources or sites; `time` tests on the
    newest patients. The last three pass over published splits.

    `unit: record` leaks, and is there to measure how much: `kfold` then deals records as if each
    were a patient of its own, so the same person stands in training and in the test.
    """

    method: Literal["stratified", "kfold", "held_out", "time"] = "stratified"
    test: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    val: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.15
    folds: Annotated[int, Field(ge=2)] = 5
    fold: Annotated[int, Field(ge=0)] = 0
    unit: Literal["patient", "record"] = "patient"
    held_out: tuple[Text, ...] = ()

    @model_validator(mode="after")
    def _fits_the_method(self) -> SplitConfig:
        if self.fold >= self.folds:
            raise ValueError(f"fold counts from 0 to {self.folds - 1}")
        if (self.method == "held_out") != bool(self.held_out):
            raise ValueError("held_out names sources or sites, and goes with method: held_out")
        if self.unit == "record" and self.method != "kfold":
            raise ValueError("unit: record leaks on purpose, and goes with method: kfold only")
        return self

    @model_validator(mode="after")
    def _room_for_training(self) -> SplitConfig:
        if self.test + self.val >= 0.9:
            raise ValueError("test and val together must leave at least a tenth for training")
        return self


class CleaningConfig(Node):
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


class AuditConfig(Node):
    """What happens where the test set is known to the training set.

    `stop` ends the study; `drop` takes the known records out of training and validation; `accept`
    goes on, and every page of the report says so.
    """

    on_leak: Literal["stop", "drop", "accept"] = "stop"
