"""The parts that a study and an external evaluation are made of."""

from pulmofuse.pipeline.audits import AUDIT_FILES, write_audit
from pulmofuse.pipeline.cohort import (
    Cohort,
    describe_cohort,
    prepare_cohort,
    require_records,
    scan,
    split_cohort,
    without_leaks,
)
from pulmofuse.pipeline.controls import run_controls
from pulmofuse.pipeline.findings import (
    FINDINGS_FILES,
    check_findings,
    write_findings,
)
from pulmofuse.pipeline.fingerprints import (
    FINGERPRINTS,
    copies_of_study,
    write_fingerprints,
)
from pulmofuse.pipeline.fusing import fit_decision_fusion, fit_feature_fusion
from pulmofuse.pipeline.keys import checkpoint_files, training_inputs
from pulmofuse.pipeline.models import check_classes, train_unimodal
from pulmofuse.pipeline.pictures import write_examples, write_explanations
from pulmofuse.pipeline.predictions import (
    PatientScores,
    decide,
    decision_predictions,
    feature_predictions,
    fusion_patients,
    operating_points,
    record_predictions,
    record_truth,
    subset_partitions,
)
from pulmofuse.pipeline.pretrained import (
    MARK,
    known_to_pretraining,
    pretraining_checks,
    seen_in_pretraining,
    weights_key,
)
from pulmofuse.pipeline.stacking import with_stacking
from pulmofuse.pipeline.steps import (
    Reporter,
    Silent,
    Steps,
    cells_key,
    locked,
    rows_hash,
    table_hash,
    versions,
)
from pulmofuse.pipeline.unlabelled import Unlabelled, unlabelled_images

__all__ = [
    "AUDIT_FILES",
    "FINDINGS_FILES",
    "FINGERPRINTS",
    "MARK",
    "Cohort",
    "PatientScores",
    "Reporter",
    "Silent",
    "Steps",
    "Unlabelled",
    "cells_key",
    "check_classes",
    "check_findings",
    "checkpoint_files",
    "copies_of_study",
    "decide",
    "decision_predictions",
    "describe_cohort",
    "feature_predictions",
    "fit_decision_fusion",
    "fit_feature_fusion",
    "fusion_patients",
    "known_to_pretraining",
    "locked",
    "operating_points",
    "prepare_cohort",
    "pretraining_checks",
    "record_predictions",
    "record_truth",
    "require_records",
    "rows_hash",
    "run_controls",
    "scan",
    "seen_in_pretraining",
    "split_cohort",
    "subset_partitions",
    "table_hash",
    "train_unimodal",
    "training_inputs",
    "unlabelled_images",
    "versions",
    "weights_key",
    "with_stacking",
    "without_leaks",
    "write_audit",
    "write_examples",
    "write_explanations",
    "write_findings",
    "write_fingerprints",
]
