"""The parts that a study and an external evaluation are made of."""

from pulmofuse.pipeline.audits import AUDIT_FILES, write_audit
from pulmofuse.pipeline.calibrating import (
    CALIBRATION_FILES,
    fit_prediction_sets,
    write_calibration,
)
from pulmofuse.pipeline.cohort import (
    Cohort,
    describe_cohort,
    list_files,
    prepare_cohort,
    require_records,
    scan,
    split_cohort,
    without_leaks,
)
from pulmofuse.pipeline.controls import run_controls
from pulmofuse.pipeline.feature_fusing import (
    describe_rows,
    fit_feature_fusion,
    fusion_source,
    training_patients,
    write_views,
)
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
from pulmofuse.pipeline.fusing import fit_decision_fusion
from pulmofuse.pipeline.fusion_controls import FUSION_CONTROL_FILES, write_fusion_controls
from pulmofuse.pipeline.gates import fit_gates
from pulmofuse.pipeline.keys import checkpoint_files, training_inputs
from pulmofuse.pipeline.models import check_classes, train_unimodal
from pulmofuse.pipeline.pictures import write_examples, write_explanations
from pulmofuse.pipeline.power import POWER_FILE, read_frame, study_power
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
from pulmofuse.pipeline.true_pairs import (
    SEEN_COPY,
    SEEN_FILE,
    SEEN_PATIENT,
    TRUE_PAIR_FILES,
    of_true_pairs,
    remove_true_pairs,
    write_true_pairs,
)
from pulmofuse.pipeline.unlabelled import Unlabelled, unlabelled_images

__all__ = [
    "AUDIT_FILES",
    "CALIBRATION_FILES",
    "FINDINGS_FILES",
    "FINGERPRINTS",
    "FUSION_CONTROL_FILES",
    "MARK",
    "POWER_FILE",
    "SEEN_COPY",
    "SEEN_FILE",
    "SEEN_PATIENT",
    "TRUE_PAIR_FILES",
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
    "describe_rows",
    "feature_predictions",
    "fit_decision_fusion",
    "fit_feature_fusion",
    "fit_gates",
    "fit_prediction_sets",
    "fusion_patients",
    "fusion_source",
    "known_to_pretraining",
    "list_files",
    "locked",
    "of_true_pairs",
    "operating_points",
    "prepare_cohort",
    "pretraining_checks",
    "read_frame",
    "record_predictions",
    "record_truth",
    "remove_true_pairs",
    "require_records",
    "rows_hash",
    "run_controls",
    "scan",
    "seen_in_pretraining",
    "split_cohort",
    "study_power",
    "subset_partitions",
    "table_hash",
    "train_unimodal",
    "training_inputs",
    "training_patients",
    "unlabelled_images",
    "versions",
    "weights_key",
    "with_stacking",
    "without_leaks",
    "write_audit",
    "write_calibration",
    "write_examples",
    "write_explanations",
    "write_findings",
    "write_fingerprints",
    "write_fusion_controls",
    "write_true_pairs",
    "write_views",
]
