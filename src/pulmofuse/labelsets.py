"""Labels that stand for a set of classes, and the partitions of the classes that they support.

"Not COVID-19" says of a study's classes normal, pneumonia and covid19 that it is one of the first
two. Such a label is written as its members in class order, "normal|pneumonia". A model whose
records carry it learns the finest partition that all its labels respect, {normal or pneumonia},
{covid19}, and its probabilities are lifted to the classes by the prior within each part.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pulmofuse.errors import StudyError

FloatArray = NDArray[np.float64]

#: Joins the members of a set; class names hold letters, digits and _ only.
SET_JOIN = "|"


def set_name(members: Iterable[str], classes: Sequence[str]) -> str:
    """Name of a set of classes: its members in class order; of one class, its own name."""
    wanted = set(members)
    return SET_JOIN.join(name for name in classes if name in wanted)


def members(name: str) -> tuple[str, ...]:
    """The classes that a name stands for: several for a set, itself for a class."""
    return tuple(name.split(SET_JOIN))


def common(names: Iterable[str]) -> str | None:
    """Name of what all these names allow, in the order of the first; None where nothing is."""
    first, *others = [members(name) for name in names]
    shared = [name for name in first if all(name in other for other in others)]
    return SET_JOIN.join(shared) or None


@dataclass(frozen=True)
class Partition:
    """Parts of the classes of a study that somebody can tell apart.

    Attributes:
        classes: of the study.
        parts: each class is in exactly one of them; members and parts are in class order.
    """

    classes: tuple[str, ...]
    parts: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, names: Iterable[str], classes: Sequence[str]) -> Partition:
        """The finest partition in which each name lies within one part.

        Args:
            names: of classes and sets; overlapping sets are joined, for nobody tells them apart.
            classes: of the study.

        Raises:
            StudyError: a name has a member that is no class.
        """
        part = {name: i for i, name in enumerate(classes)}
        for name in set(names):
            own = members(name)
            strangers = [member for member in own if member not in part]
            if strangers:
                raise StudyError(
                    f"class {name!r}",
                    f"is not one of {', '.join(classes)}, nor a set of them",
                    "use the classes that the study names",
                )
            joined = {part[member] for member in own}
            part = {c: min(joined) if i in joined else i for c, i in part.items()}
        groups: dict[int, list[str]] = {}
        for name in classes:
            groups.setdefault(part[name], []).append(name)
        return cls(tuple(classes), tuple(map(tuple, groups.values())))

    @classmethod
    def fine(cls, classes: Sequence[str]) -> Partition:
        """Every class by itself."""
        return cls(tuple(classes), tuple((name,) for name in classes))

    @classmethod
    def meet(cls, partitions: Sequence[Partition]) -> Partition:
        """What several can tell apart together: classes that any of them tells apart."""
        classes = partitions[0].classes
        groups: dict[tuple[int, ...], list[str]] = {}
        for name in classes:
            key = tuple(partition.index(name) for partition in partitions)
            groups.setdefault(key, []).append(name)
        return cls(classes, tuple(map(tuple, groups.values())))

    @classmethod
    def join(cls, partitions: Sequence[Partition]) -> Partition:
        """What each of several can tell apart: classes that any of them confuses are one part."""
        names = [name for partition in partitions for name in partition.names]
        return cls.of(names, partitions[0].classes)

    @property
    def is_fine(self) -> bool:
        """Whether every class is a part by itself."""
        return len(self.parts) == len(self.classes)

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each part."""
        return tuple(map(SET_JOIN.join, self.parts))

    def index(self, name: str) -> int:
        """Number of the part that holds a class or set; -1 where it lies across several."""
        own = {i for i, part in enumerate(self.parts) for m in members(name) if m in part}
        inside = all(member in self.classes for member in members(name))
        return own.pop() if inside and len(own) == 1 else -1

    def codes(self, names: Iterable[object]) -> NDArray[np.int64]:
        """Number of the part of each name (n,)."""
        listed = [str(name) for name in names]
        known = {name: self.index(name) for name in set(listed)}
        return np.array([known[name] for name in listed], dtype=np.int64)

    def collapse(self, p: FloatArray) -> FloatArray:
        """Probabilities (..., classes) as those of the parts (..., parts)."""
        return p if self.is_fine else p @ self._membership

    def lift(self, p: FloatArray, prior: FloatArray) -> FloatArray:
        """Probabilities of the parts (..., parts) as those of the classes (..., classes).

        A part's probability is divided among its classes by the prior, so that the ratio of a
        class's probability to its prior is that of its part: the model adds no evidence between
        classes that it cannot tell apart.

        Args:
            p: probabilities of the parts.
            prior: (classes,), positive.
        """
        if self.is_fine:
            return p
        within = prior / (self._membership @ (prior @ self._membership))
        return np.asarray((p @ self._membership.T) * within)

    @property
    def _membership(self) -> FloatArray:
        """(classes, parts), 1 where a class is in a part."""
        return np.array([[float(c in part) for part in self.parts] for c in self.classes])


def class_frequencies(names: Iterable[object], classes: Sequence[str]) -> FloatArray:
    """Frequencies (classes,) with one pseudo-count each, so that none is 0.

    A set counts for its members in proportion to their own frequencies.
    """
    counts = dict.fromkeys(classes, 1.0)
    sets: list[tuple[str, ...]] = []
    for name in names:
        own = members(str(name))
        if len(own) == 1:
            counts[own[0]] += 1.0
        else:
            sets.append(own)
    single = dict(counts)
    for own in sets:
        total = sum(single[member] for member in own)
        for member in own:
            counts[member] += single[member] / total
    found = np.array(list(counts.values()))
    return np.asarray(found / found.sum())
