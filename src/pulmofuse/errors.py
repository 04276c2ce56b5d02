"""Errors that a user can act on: each one says what, why and what to do next."""

from __future__ import annotations

from pathlib import Path


class PulmofuseError(Exception):
    """Base of every error that Pulmofuse raises on purpose.

    Args:
        what: the file, record or setting concerned.
        why: the reason, in plain words.
        remedy: what the user can do about it.
    """

    def __init__(self, what: str | Path, why: str, remedy: str) -> None:
        super().__init__(f"{what}: {why}. {remedy[:1].upper()}{remedy[1:]}.")
        self.what = str(what)
        self.why = why
        self.remedy = remedy


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


class StudyError(PulmofuseError):
    """A study cannot go on: too few patients, one class only, a locked output folder."""


class LeakageFound(PulmofuseError):
    """The audit found the same patient or the same content on both sides of a split."""
