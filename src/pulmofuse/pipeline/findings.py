"""The findings of a study: what can be learnt of them, and what the model says of test records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from pulmofuse.config import CxrConfig, StudyConfig
from pulmofuse.errors import StudyError
from pulmofuse.evaluation.findings import findings_table
from pulmofuse.files import write_csv, write_parquet
from pulmofuse.findings import Finding, findings_matrix
from pulmofuse.inference import Scores, Unimodal, findings_probabilities
from pulmofuse.models import Classifier
from pulmofuse.pipeline.cohort import Cohort
from pulmofuse.schema import Modality, Split
from pulmofuse.training import learnable_findings, new_findings_head

#: Files of `write_findings`.
FINDINGS_FILES = ("findings.parquet", "findings.csv")

_KEY = "cxr.model.findings_weight"


def findings_weight(part: object) -> float:
    """Weight of the findings loss of a modality's configuration; 0 where it has none."""
    return part.model.findings_weight if isinstance(part, CxrConfig) else 0.0


def check_findings(cohort: Cohort, config: StudyConfig) -> None:
    """Make sure that a study that asks for findings can learn one, before anything is trained.

    Raises:
        StudyError: no finding is both present and absent in the X-rays of the training split.
    """
    if findings_weight(config.cxr) == 0 or Modality.CXR not in cohort.caches:
        return
    records = cohort.of(Modality.CXR)
    texts = records.loc[records["split"] == Split.TRAIN, "findings"]
    if not learnable_findings(findings_matrix(texts, Finding)):
        raise StudyError(
            _KEY,
            "no finding is present in some X-rays of the training split and absent in others",
            f"add a data set that states findings, or set {_KEY} to 0",
        )


def add_findings_head(model: Classifier, part: object, train: pd.DataFrame, seed: int) -> None:
    """Give a model the head for what its training records state, where the study asks for it.

    Args:
        model: untrained, and no ensemble; changed in place.
        part: the modality's configuration.
        train: records of the training split.
        seed: decides what the head starts from.
    """
    if findings_weight(part) == 0:
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.findings_head = new_findings_head(model.feature_dim, train["findings"].tolist())


def findings_predictions(part: Unimodal, records: pd.DataFrame, scores: Scores) -> pd.DataFrame:
    """What the model says of findings of the test records, and what their data sets say.

    Args:
        part: the X-ray model.
        records: the X-rays of the study.
        scores: of these records.

    Returns:
        One row per test record and finding: record_id, patient_id, source, finding, y_true (1, 0 or
        null where the data set does not say) and p.
    """
    tested = records[records["split"] == Split.TEST]
    names = [finding.value for finding in part.model.findings]
    features = scores.features[scores.table.index.get_indexer(pd.Index(tested["record_id"]))]
    repeated = tested.loc[tested.index.repeat(len(names)), ["record_id", "patient_id", "source"]]
    return repeated.reset_index(drop=True).assign(
        finding=names * len(tested),
        y_true=findings_matrix(tested["findings"], names).ravel().astype(np.float64),
        p=findings_probabilities(part.model, features).ravel(),
    )


def write_findings(
    part: Unimodal, records: pd.DataFrame, scores: Scores, config: StudyConfig, out: Path
) -> str:
    """Write `FINDINGS_FILES` into `out` and return a note; arguments as `findings_predictions`."""
    predictions = findings_predictions(part, records, scores)
    table = findings_table(predictions, config.evaluation, config.seed)
    predictions_path, table_path = (out / name for name in FINDINGS_FILES)
    write_parquet(predictions_path, predictions)
    write_csv(table_path, table)
    return f"{len(table)} findings, {table['roc_auc'].notna().sum()} with both kinds of records"
