"""The configuration of a study: one tree, read from YAML, with every default in it."""

from pulmofuse.config.data import (
    AuditConfig,
    CleaningConfig,
    SourceConfig,
    SplitConfig,
    Target,
)
from pulmofuse.config.models import (
    CoughConfig,
    CoughModelConfig,
    CtConfig,
    CtModelConfig,
    CxrConfig,
    CxrModelConfig,
    FusionTraining,
    ImageModelConfig,
    TestTimeViews,
    TrainingConfig,
)
from pulmofuse.config.preprocessing import (
    CoughAugmentation,
    CoughPreprocessing,
    CtPreprocessing,
    CxrPreprocessing,
    ImageAugmentation,
)
from pulmofuse.config.pretrain import PretrainConfig
from pulmofuse.config.study import (
    ConformalConfig,
    EvaluationConfig,
    FusionConfig,
    StudyConfig,
    ThresholdTarget,
    dump_config,
    load_config,
    parse_config,
)

__all__ = [
    "AuditConfig",
    "CleaningConfig",
    "ConformalConfig",
    "CoughAugmentation",
    "CoughConfig",
    "CoughModelConfig",
    "CoughPreprocessing",
    "CtConfig",
    "CtModelConfig",
    "CtPreprocessing",
    "CxrConfig",
    "CxrModelConfig",
    "CxrPreprocessing",
    "EvaluationConfig",
    "FusionConfig",
    "FusionTraining",
    "ImageAugmentation",
    "ImageModelConfig",
    "PretrainConfig",
    "SourceConfig",
    "SplitConfig",
    "StudyConfig",
    "Target",
    "TestTimeViews",
    "ThresholdTarget",
    "TrainingConfig",
    "dump_config",
    "load_config",
    "parse_config",
]
