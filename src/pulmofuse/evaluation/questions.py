"""Which question a row of predictions can be held to, where labels stand for sets of classes.

A CT of "not COVID-19" cannot show whether a model tells normal from pneumonia. So a subset of
modalities is evaluated on the finest partition of the classes that all its rows support, in what is
true and in what is called: every row counts, and for nothing that its label does not answer. Two
subsets are compared on what both support. Without sets every class is a part by itself, and
nothing changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from pulmofuse.labelsets import Partition
from pulmofuse.schema import class_columns

#: Columns that name classes or sets of them.
_SAID = ("y_true", "y_pred")


def questions(predictions: pd.DataFrame, classes: Sequence[str]) -> dict[str, Partition]:
    """The partition that each subset of modalities is evaluated on.

    Args:
        predictions: subset, y_true, and y_pred where classes were called; they hold names of
            classes, and of sets as `labelsets.set_name` writes them.
        classes: of the study.

    Raises:
        StudyError: a name is no class and no set of them.
    """
    said = [column for column in _SAID if column in predictions]
    return {
        str(subset): Partition.of({n for c in said for n in group[c].unique()}, classes)
        for subset, group in predictions.groupby("subset", sort=False)
    }


def common_question(
    asked: Mapping[str, Partition], subsets: Iterable[str], classes: Sequence[str]
) -> Partition:
    """What several subsets can be compared on, of those that have predictions."""
    own = [asked[subset] for subset in subsets if subset in asked]
    return Partition.join(own) if own else Partition.fine(classes)


def as_asked(predictions: pd.DataFrame, question: Partition) -> pd.DataFrame:
    """Predictions with a question's parts for classes: y_true, y_pred, p_<part>, p_raw_<part>.

    A fine question leaves the table as it is.
    """
    if question.is_fine:
        return predictions
    names = question.names
    renamed = {
        column: [names[i] for i in question.codes(predictions[column])]
        for column in _SAID
        if column in predictions
    }
    out = predictions.assign(**renamed)
    for raw in (False, True):
        before = class_columns(question.classes, raw=raw)
        if set(before) <= set(out):
            p = question.collapse(out[before].to_numpy(dtype=float))
            columns = pd.DataFrame(p, columns=class_columns(names, raw=raw), index=out.index)
            out = out.drop(columns=before).join(columns)
    return out


def told(question: Partition) -> dict[str, str]:
    """What a row says of its question; nothing where it is about all classes."""
    return {} if question.is_fine else {"question": ", ".join(question.names)}


def positive_of(question: Partition, positive: str | None) -> str | None:
    """The positive class, where it is a part by itself."""
    return positive if positive in question.names else None
