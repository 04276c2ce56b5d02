"""A study folder whose bundle learnt nothing, and data: what predictions are tested with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from pulmofuse.config import StudyConfig, dump_config, parse_config
from pulmofuse.evaluation import Calibration
from pulmofuse.files import write_text
from pulmofuse.inference import Bundle, DecisionFusion, FeatureFusion, Unimodal, save_bundle
from pulmofuse.inference.bundle import build_model
from pulmofuse.models import FUSIONS, build_fusion
from pulmofuse.pipeline import scan
from pulmofuse.schema import Modality
from pulmofuse.sources.synthetic import SyntheticConfig, generate

CONFIG = """
name: untrained
question: What is written?
target:
  classes: [normal, covid19]
  positive: covid19
  mapping: {normal: normal, covid19: covid19}
sources: [{name: synthetic}]
ct: {preprocessing: {size: 32}, model: {weights: none}}
cxr: {preprocessing: {size: 32}, model: {weights: none}}
cough:
  preprocessing: {duration_s: 0.5, max_windows: 1}
  model: {architecture: mfcc_lstm}
evaluation: {bootstrap: 100}
"""
SAME = Calibration(1.0, (0.0, 0.0))
SUBSETS = ("ct", "cxr", "cough", "ct+cxr", "ct+cough", "cxr+cough", "ct+cxr+cough")


@dataclass(frozen=True)
class Untrained:
    """A study folder with a bundle, and data."""

    study: Path
    data: Path
    manifest: pd.DataFrame
    bundle: Bundle
    config: StudyConfig


def untrained_bundle(config: StudyConfig) -> Bundle:
    torch.manual_seed(0)
    classes = config.target.classes
    parts = {
        m: Unimodal(m, config.of(m), build_model(m, config.of(m), len(classes)).eval(), SAME)
        for m in Modality
    }
    dims = {m.value: part.model.feature_dim for m, part in parts.items()}
    half = np.full(2, 0.5)
    decision = DecisionFusion(tuple(parts), half, np.full((3, 2), 0.5), np.ones(3), 1.0)
    calibration = {name: SAME for name in SUBSETS if "+" in name}
    return Bundle(
        name="untrained",
        question="",
        classes=classes,
        positive="covid19",
        unimodal=parts,
        decision=decision,
        feature={
            method: FeatureFusion(
                build_fusion(method, dims, len(classes), 8, 0.0, 0.0), 8, 0.0, 0.0, calibration
            )
            for method in FUSIONS
        },
        thresholds={},
    )


def make_untrained(root: Path) -> Untrained:
    """Eight patients with one file of each modality."""
    study, data = root / "study", root / "data"
    generate(data, SyntheticConfig(patients=8, classes=("normal", "covid19"), seed=3))
    config = parse_config(CONFIG)
    manifest, _ = scan(config.sources, data)
    bundle = untrained_bundle(config)
    save_bundle(study / "bundle", bundle)
    write_text(study / "config.resolved.yaml", dump_config(config))
    return Untrained(study, data, manifest, bundle, config)
