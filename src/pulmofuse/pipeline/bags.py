"""What a model is trained on: single instances, bags of them, or volumes."""

from __future__ import annotations

import numpy as np
import pandas as pd

from pulmofuse.config import TrainingConfig
from pulmofuse.inference import instance_rows
from pulmofuse.models import Classifier
from pulmofuse.training import BagSource, InstanceSource, VolumeSource

#: Batch normalisation and the loss want more than one bag in a step.
_FEWEST_BAGS = 2


def record_source(
    model: Classifier,
    records: pd.DataFrame,
    instances: np.ndarray,
    y: np.ndarray,
    patient_limit: int | None = None,
    site: np.ndarray | None = None,
    findings: np.ndarray | None = None,
) -> InstanceSource | BagSource:
    """Rows to train or validate a model on, as it reads records.

    Args:
        model: reads instances, bags (where it attends) or volumes.
        records: patient_id, start, stop.
        instances: (rows, ...) of the cache.
        y: (records,) class indexes.
        patient_limit: for a model that attends: put records of one patient and class into one
            bag, of at most so many instances; more of them make further bags, and a record is
            never divided. None makes each record a bag.
        site: (records,) as in `Targets`; of a bag it is that of its first record.
        findings: (records, findings) likewise.
    """
    if model.attends and patient_limit is not None:
        bags = _patient_bags(records, y, patient_limit)
        rows, counts = instance_rows(records.iloc[np.concatenate(bags)])
        starts = np.cumsum([0, *map(len, bags)])[:-1]
        counts = np.add.reduceat(counts, starts)
        first = [bag[0] for bag in bags]
        y, site, findings = y[first], _take(site, first), _take(findings, first)
        return BagSource(instances, rows, counts, y, site=site, findings=findings)
    rows, counts = instance_rows(records)
    if model.depth is not None:
        return VolumeSource(
            instances, rows, counts, y, site=site, findings=findings, depth=model.depth
        )
    if model.attends:
        return BagSource(instances, rows, counts, y, site=site, findings=findings)
    each = np.repeat(np.arange(len(counts)), counts)
    return InstanceSource(
        instances, rows, y[each], site=_take(site, each), findings=_take(findings, each)
    )


def _take(values: np.ndarray | None, places: list[int] | np.ndarray) -> np.ndarray | None:
    return None if values is None else values[places]


def bag_training(config: TrainingConfig, source: InstanceSource | BagSource) -> TrainingConfig:
    """The settings with as many bags in a step as hold about `batch_size` instances.

    Steps then cost the same time and memory whatever the bags' size. Volumes count as one.
    """
    if isinstance(source, InstanceSource | VolumeSource):
        return config
    bags = max(_FEWEST_BAGS, round(config.batch_size / source.mean_size))
    return config.model_copy(update={"batch_size": bags})


def _patient_bags(records: pd.DataFrame, y: np.ndarray, limit: int) -> list[list[int]]:
    """Positions of the records of each bag."""
    groups: dict[tuple[str, int], list[int]] = {}
    for place, key in enumerate(zip(records["patient_id"], y.tolist(), strict=True)):
        groups.setdefault(key, []).append(place)
    counts = (records["stop"] - records["start"]).tolist()
    bags: list[list[int]] = []
    for members in groups.values():
        size = limit
        for place in members:
            if size + counts[place] > limit:
                bags.append([])
                size = 0
            bags[-1].append(place)
            size += counts[place]
    return bags
