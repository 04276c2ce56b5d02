"""What the input gate keeps of a study's records."""

from __future__ import annotations

import json
from collections.abc import Mapping

from pulmofuse.config import CoughConfig, StudyConfig
from pulmofuse.inference import GateStatistics, Scores, fit_statistics
from pulmofuse.pipeline.cohort import Cohort
from pulmofuse.schema import Modality, Oddity, Split


def fit_gates(
    cohort: Cohort, scores: Mapping[Modality, Scores], config: StudyConfig
) -> dict[Modality, GateStatistics]:
    """Statistics of each modality's training and validation records; the test set stays closed."""
    return {m: _fit(cohort, scored, m, config) for m, scored in scores.items()}


def _fit(cohort: Cohort, scored: Scores, modality: Modality, config: StudyConfig) -> GateStatistics:
    records = cohort.of(modality).set_index("record_id").loc[scored.table.index]
    train, val = (records["split"] == part for part in (Split.TRAIN, Split.VAL))
    known = records[train | val]
    remarks = cohort.remarks
    own = (remarks["modality"] == modality.value) & remarks["path"].isin(known["path"])
    kinds = remarks.loc[own].drop_duplicates(["path", "kind"])["kind"]
    part = config.of(modality)
    return fit_statistics(
        modality,
        [json.loads(text) for text in known["traits"]],
        [Oddity(kind) for kind in kinds],
        config.cleaning.exclude,
        None if isinstance(part, CoughConfig) else part.preprocessing.size,
        scored.features[train.to_numpy()],
        scored.features[val.to_numpy()],
    )
