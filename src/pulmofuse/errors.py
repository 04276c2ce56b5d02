"""Errors that a user can act on: each one says what, why and what to do next."""

from __future__ import annotations

from pathlib import Path


class PulmofuseError(Exception):
    """Base of every error that Pulmofuse raises on purpose; `str()` of it is one line.

    Args:
        what: the file, record or setting concerned.
        why: the reason, in plain words, without a full stop.
        remedy: what the user can do about it, without a full stop.
    """

    def __init__(self, what: str | Path, why: str, remedy: str) -> None:
        self.what = _one_line(str(what))
        self.why = _one_line(why)
        self.remedy = _one_line(remedy)
        super().__init__(f"{self.what}: {self.why}. {self.remedy[:1].upper()}{self.remedy[1:]}.")

    def __reduce__(self) -> tuple[type[PulmofuseError], tuple[str, str, str]]:
        """Rebuild from the three parts; worker processes send their errors home this way."""
        return type(self), (self.what, self.why, self.remedy)


class UnreadableFile(PulmofuseError):
    """A file cannot be read as what it should be (broken, empty, wrong type, absurd size, NaN)."""


class SourceError(PulmofuseError):
    """A data set is not laid out as its data sheet says, or is not there."""


class ManifestError(PulmofuseError):
    """A manifest breaks its schema."""


class ConfigError(PulmofuseError):
    """A study configuration holds an unknown key or an impossible value."""


class UnknownLabel(PulmofuseError):
    """A label is not one of `schema.Label`."""


class WeightsError(PulmofuseError):
    """Weights are missing, damaged or do not fit the architecture."""


class BundleError(PulmofuseError):
    """A model bundle is incomplete, damaged or of another version."""


class InputRefused(PulmofuseError):
    """A file can be read, and is not what the model was made for."""


class RuntimeUnavailable(PulmofuseError):
    """A runtime is unknown, not installed, or cannot take a model."""


class LeakageFound(PulmofuseError):
    """The test set is known to the training set, or copies of one file carry two classes."""


class StudyError(PulmofuseError):
    """A study cannot go on: too few patients, one class only, a locked output folder."""


class ServiceError(PulmofuseError):
    """The service cannot start, or its database or its keys are not as they must be."""


def _one_line(text: str) -> str:
    """The text without line breaks and closing full stops; libraries' messages have both."""
    return " ".join(text.split()).rstrip(".")
