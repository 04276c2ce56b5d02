"""The models and their training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pulmofuse.config.base import Count, Node, Positive
from pulmofuse.config.preprocessing import (
    CoughAugmentation,
    CoughPreprocessing,
    CtPreprocessing,
    CxrPreprocessing,
    ImageAugmentation,
)


class TestTimeViews(Node):
    """Views of an image whose features are averaged wherever a trained model is used.

    The views are every zoom, each mirrored too if `flip_horizontal`. A zoom above 1 shows the
    middle of the image larger, one below 1 shows it smaller with its edge repeated around it.
    """

    __test__ = False  # the name begins as pytest's classes do

    flip_horizontal: bool = False
    zooms: tuple[Annotated[float, Field(ge=0.5, le=2.0)], ...] = (1.0,)

    @model_validator(mode="after")
    def _plain_view_is_there(self) -> TestTimeViews:
        if 1.0 not in self.zooms or len(set(self.zooms)) != len(self.zooms):
            raise ValueError("zooms must hold 1.0, the plain view, and none of them twice")
        return self


class ImageModelConfig(Node):
    """A backbone and a head. `weights`: "imagenet", "none", a file or a URL.

    `pooling` "levels" gives the head textures of finer maps too (`models.levels`), "covariance"
    which of them appear together (`models.covariance`).
    """

    backbone: str = "efficientnet_lite0"
    weights: str = "imagenet"
    pooling: Literal["last", "levels", "covariance"] = "last"
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2


class CtModelConfig(ImageModelConfig):
    """How the slices of a record are joined; `depth` is for "volume", which has no backbone."""

    aggregation: Literal["mean", "attention", "volume"] = "mean"
    attention_hidden: Count = 64
    depth: Count = 16


class CxrModelConfig(ImageModelConfig):
    """An image model that may learn findings beside the classes.

    `findings_weight` is the factor of their loss beside that of the classes; 0 is off.
    """

    findings_weight: Annotated[float, Field(ge=0.0)] = 0.0


class CoughModelConfig(Node):
    """Architecture of the cough model; `backbone` and `weights` are for spectrogram_cnn only."""

    architecture: Literal["spectrogram_cnn", "mfcc_lstm", "crnn"] = "spectrogram_cnn"
    backbone: str = "efficientnet_lite0"
    weights: str = "imagenet"
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.3
    hidden: Count = 64
    aggregation: Literal["mean", "attention"] = "mean"
    attention_hidden: Count = 64


class TrainingConfig(Node):
    """Optimisation of one model: AdamW, one cycle, learning rates by stage.

    `mixup` and `cutmix` are the alpha of the Beta distribution that shares are drawn from; 0 is
    off, and where both are on, each batch draws one of them. `sampling` is explained in
    `training.sampling`; `trainable`, `unfreeze_epochs`, `frozen_stages` and `layer_decay` in
    `models.unfreezing`; `members` is the size of an ensemble of seeds.
    `adversarial` is the strength with which features are trained not to tell the site (Ganin et
    al. 2016). `choose_epoch` names the validation figure that the best epoch has the most of.
    """

    epochs: Count = 18
    # Batch normalisation cannot train on one row.
    batch_size: Annotated[int, Field(ge=2)] = 32
    accumulate: Count = 1
    lr_backbone: Positive = 4e-4
    lr_head: Positive = 2e-3
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    trainable: Literal["all", "head", "gradual"] = "all"
    probe_views: Annotated[int, Field(ge=0)] = 0
    unfreeze_epochs: Count = 5
    frozen_stages: Annotated[int, Field(ge=0)] = 0
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.02
    warmup: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.05
    mixup: Annotated[float, Field(ge=0.0)] = 0.0
    cutmix: Annotated[float, Field(ge=0.0)] = 0.0
    sampling: Literal["shuffled", "balanced", "balanced_sites"] = "shuffled"
    adversarial: Annotated[float, Field(ge=0.0)] = 0.0
    class_weights: bool = True
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.98
    patience: Count = 8
    choose_epoch: Literal["auc", "auc_within_site"] = "auc"
    gradient_clip: Positive = 1.0
    precision: Literal["bf16", "fp32"] = "bf16"
    members: Count = 1

    @model_validator(mode="after")
    def _what_a_head_can_do(self) -> TrainingConfig:
        if self.trainable != "head":
            if self.probe_views:
                raise ValueError(
                    "probe_views are views for a network that is not trained: set trainable to"
                    " head, or probe_views to 0"
                )
            return self
        if self.frozen_stages:
            raise ValueError("trainable head freezes all other stages: set frozen_stages to 0")
        if self.adversarial:
            raise ValueError(
                "adversarial changes features, and trainable head leaves them as they are:"
                " set one of them otherwise"
            )
        if self.cutmix:
            raise ValueError(
                "cutmix needs images, and trainable head learns from features: set cutmix to 0;"
                " mixup can be had"
            )
        return self


class CtConfig(Node):
    """Everything about the CT model."""

    preprocessing: CtPreprocessing = CtPreprocessing()
    # A mirrored CT slice is still an axial slice of a chest; a mirrored X-ray is dextrocardia.
    augmentation: ImageAugmentation = ImageAugmentation(flip_horizontal=True)
    model: CtModelConfig = CtModelConfig()
    tta: TestTimeViews = TestTimeViews()
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _what_covariance_can_do(self) -> CtConfig:
        _refuse_what_covariance_cannot(self.model, self.training)
        return self

    @model_validator(mode="after")
    def _no_mixed_bags(self) -> CtConfig:
        _refuse_what_bags_cannot(self.model.aggregation, self.training)
        return self

    @model_validator(mode="after")
    def _what_a_volume_can_do(self) -> CtConfig:
        if self.model.aggregation != "volume":
            return self
        training, augmentation = self.training, self.augmentation
        # The network has no views, no levels and no stages, and nothing in it is pre-trained; the
        # two changes of the image are made for one slice.
        refused = {
            "tta": self.tta != TestTimeViews(),
            "model.pooling": self.model.pooling != "last",
            "training.trainable": training.trainable != "all",
            "training.frozen_stages": training.frozen_stages > 0,
            "training.layer_decay": training.layer_decay != 1.0,
            "augmentation.style": augmentation.style > 0,
            "augmentation.jpeg": augmentation.jpeg > 0,
        }
        names = [name for name, set_otherwise in refused.items() if set_otherwise]
        if names:
            raise ValueError(
                f"model.aggregation volume cannot do {', '.join(names)}: leave out these keys,"
                " or take another aggregation"
            )
        return self


class CxrConfig(Node):
    """Everything about the chest X-ray model."""

    preprocessing: CxrPreprocessing = CxrPreprocessing()
    augmentation: ImageAugmentation = ImageAugmentation()
    model: CxrModelConfig = CxrModelConfig()
    tta: TestTimeViews = TestTimeViews()
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _what_covariance_can_do(self) -> CxrConfig:
        _refuse_what_covariance_cannot(self.model, self.training)
        return self


class CoughConfig(Node):
    """Everything about the cough model."""

    preprocessing: CoughPreprocessing = CoughPreprocessing()
    augmentation: CoughAugmentation = CoughAugmentation()
    model: CoughModelConfig = CoughModelConfig()
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _no_mixed_bags(self) -> CoughConfig:
        _refuse_what_bags_cannot(self.model.aggregation, self.training)
        return self


def _refuse_what_covariance_cannot(model: ImageModelConfig, training: TrainingConfig) -> None:
    """The last stages of the network have no say in it, so that there is nothing to train there."""
    if model.pooling == "covariance" and training.trainable != "head":
        raise ValueError(
            "model.pooling covariance looks at the middle of a network that stays as it is: set"
            " training.trainable to head, or model.pooling to levels"
        )


def _refuse_what_bags_cannot(aggregation: str, training: TrainingConfig) -> None:
    """A blend of two instances has the class of neither's bag; and attention sees no views."""
    if aggregation != "attention":
        return
    if training.probe_views:
        raise ValueError(
            "model.aggregation attention runs the network on bags anew in every epoch, without"
            " probe_views: set training.probe_views to 0"
        )
    if training.mixup or training.cutmix:
        raise ValueError(
            "model.aggregation attention learns from bags of instances, which cannot be mixed:"
            " set training.mixup and training.cutmix to 0"
        )


FusionMethod = Literal["concatenation", "gated_attention", "cross_attention", "bilinear"]


class FusionTraining(Node):
    """The feature-level fusions: networks over the features of the frozen unimodal models.

    `methods` are compared, each trained with the other settings; see `models.fusion_model`.
    """

    methods: Annotated[tuple[FusionMethod, ...], Field(min_length=1)] = (
        "concatenation",
        "gated_attention",
        "cross_attention",
        "bilinear",
    )
    hidden: Count = 64
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.3
    modality_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.3
    views: Count = 4
    training: TrainingConfig = TrainingConfig(
        epochs=30,
        batch_size=64,
        lr_backbone=1e-3,
        lr_head=1e-3,
        weight_decay=0.05,
        patience=10,
        ema_decay=0.9,
        precision="fp32",
    )

    @model_validator(mode="after")
    def _each_method_once(self) -> FusionTraining:
        if len(set(self.methods)) != len(self.methods):
            raise ValueError("a method is named twice in methods")
        return self

    @model_validator(mode="after")
    def _what_a_fusion_can_do(self) -> FusionTraining:
        if self.training.members != 1:
            raise ValueError("the fusion is one model: set members of the unimodal models instead")
        if self.training.sampling == "balanced_sites":
            raise ValueError("a fused patient has no one site: sampling is shuffled or balanced")
        if self.training.adversarial or self.training.choose_epoch != "auc":
            raise ValueError(
                "a fused patient has no one site: adversarial is 0 and choose_epoch is auc"
            )
        if self.training.mixup or self.training.cutmix:
            raise ValueError(
                "patients lack different modalities and cannot be mixed: mixup and cutmix are 0"
            )
        if self.training.trainable != "all" or self.training.frozen_stages:
            raise ValueError(
                "nothing in the fusion is pre-trained: trainable is all and frozen_stages is 0"
            )
        if self.training.layer_decay != 1.0:
            raise ValueError("the fusion has one stage below its head: layer_decay is 1")
        return self
