"""The cough models: a spectral front end and one of three networks behind it.

`spectrogram_cnn` reads the log-mel spectrogram as an image, with ImageNet weights; `mfcc_lstm`
reads cepstral coefficients in time order; `crnn` puts a recurrent layer on a small convolutional
stack. The front end is part of the model, so that every user of a model shares it. It stays in
float32 under autocast, and so do the recurrent layers: over hundreds of steps bfloat16 was three
times slower on a CPU (32 clips of 401 frames, LSTM of 64).
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from pulmofuse.config import CoughConfig
from pulmofuse.models.backbones import Backbone, build_backbone
from pulmofuse.models.classifier import Classifier
from pulmofuse.preprocessing import LogMel, Mfcc, SpecAugment

#: Range below the loudest point of a clip that is kept; `top_db` of librosa.power_to_db.
DYNAMIC_RANGE_DB = 80.0

#: Least height of the spectrogram image. A stride of 32 leaves 64 mel bands two rows, in which a
#: map can only tell low from high; 128 rows leave four, and 4 s of sound then cost about what a
#: 224 x 224 image costs. Time is not stretched: 10 ms frames leave 13 columns already.
MIN_IMAGE_ROWS = 128

_DELTA_REACH = 4  # frames on each side of the regression, as in librosa.feature.delta (width 9)
_SMALLEST_DEVIATION = 1e-3  # a coefficient that does not move at all is not divided by zero
_CRNN_CHANNELS = (32, 64, 128)
_CRNN_ROWS = 4  # frequency rows that reach the recurrent layer


class SpectrogramCnn(Classifier):
    """An image backbone on the log-mel spectrogram.

    Args:
        config: of the cough model.
        backbone: (n, 1, h, w) in [0, 1] -> (n, out_channels, h', w').
        n_classes: number of outputs.
    """

    def __init__(self, config: CoughConfig, backbone: Backbone, n_classes: int) -> None:
        super().__init__(backbone.out_channels, n_classes, config.model.dropout)
        self.log_mel = LogMel(config.preprocessing)
        self.spec_augment = SpecAugment(config.augmentation)
        self.backbone = backbone

    def stages(self) -> list[list[nn.Module]]:
        """The stages of the backbone, then the head."""
        return [*self.backbone.stages(), self.heads()]

    def feature_map(self, x: Tensor) -> Tensor:
        """(n, samples) in [-1, 1] -> (n, channels, h', w'); rows are bands, columns are time."""
        image = self.spec_augment(normalise_db(self.log_mel(x))).unsqueeze(1)
        rows = max(image.shape[2], MIN_IMAGE_ROWS)
        if rows != image.shape[2]:
            image = functional.interpolate(
                image, size=(rows, image.shape[3]), mode="bilinear", align_corners=False
            )
        y: Tensor = self.backbone(image)
        return y


class MfccLstm(Classifier):
    """Two bidirectional LSTM layers on MFCC with their first and second differences.

    Each coefficient is normalised over its clip (cepstral mean and variance normalisation, Viikki
    and Laurila 1998), which takes out the constant colour of a microphone. The steps are pooled by
    attention, since most frames of a cough recording hold no cough.

    Args:
        config: of the cough model.
        n_classes: number of outputs.
    """

    def __init__(self, config: CoughConfig, n_classes: int) -> None:
        hidden = config.model.hidden
        super().__init__(2 * hidden, n_classes, config.model.dropout)
        self.mfcc = Mfcc(config.preprocessing)
        self.lstm = nn.LSTM(
            3 * config.preprocessing.n_mfcc,
            hidden,
            num_layers=2,
            batch_first=True,
            dropout=config.model.dropout,
            bidirectional=True,
        )
        self.attention = nn.Sequential(
            nn.Linear(2 * hidden, hidden), nn.Tanh(), nn.Linear(hidden, 1)
        )

    def stages(self) -> list[list[nn.Module]]:
        """The recurrent layers with their pooling, the head."""
        return [[self.lstm, self.attention], self.heads()]

    def feature_map(self, x: Tensor) -> Tensor:
        """(n, samples) in [-1, 1] -> (n, 2 * hidden, 1, frames)."""
        mfcc = self.mfcc(x)
        with torch.autocast(x.device.type, enabled=False):
            first = delta(mfcc)
            frames = standardise(torch.cat((mfcc, first, delta(first)), dim=1))
            states, _ = self.lstm(frames.transpose(1, 2))
        y: Tensor = states.transpose(1, 2).unsqueeze(2)
        return y

    def pool(self, feature_map: Tensor) -> Tensor:
        """(n, 2 * hidden, 1, frames) -> (n, 2 * hidden), weighted by attention over the frames."""
        states = feature_map.float().squeeze(2).transpose(1, 2)
        weights: Tensor = self.attention(states).float().softmax(dim=1)
        return (weights * states).sum(dim=1)


class Crnn(Classifier):
    """Three convolutional blocks and a bidirectional GRU on the log-mel spectrogram.

    Each block halves time and frequency (Cakir et al. 2017, arXiv:1702.06286).

    Args:
        config: of the cough model.
        n_classes: number of outputs.
    """

    def __init__(self, config: CoughConfig, n_classes: int) -> None:
        hidden = config.model.hidden
        super().__init__(2 * hidden, n_classes, config.model.dropout)
        self.log_mel = LogMel(config.preprocessing)
        self.spec_augment = SpecAugment(config.augmentation)
        layers: list[nn.Module] = []
        for before, after in zip((1, *_CRNN_CHANNELS), _CRNN_CHANNELS, strict=False):
            layers += [
                nn.Conv2d(before, after, 3, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
                nn.MaxPool2d(2, ceil_mode=True),
            ]
        self.convolutions = nn.Sequential(*layers)
        self.gru = nn.GRU(
            _CRNN_CHANNELS[-1] * _CRNN_ROWS, hidden, batch_first=True, bidirectional=True
        )

    def stages(self) -> list[list[nn.Module]]:
        """The convolutions, the recurrent layer, the head."""
        return [[self.convolutions], [self.gru], self.heads()]

    def feature_map(self, x: Tensor) -> Tensor:
        """(n, samples) in [-1, 1] -> (n, 2 * hidden, 1, ceil(frames / 8))."""
        image = self.spec_augment(normalise_db(self.log_mel(x))).unsqueeze(1)
        maps = self.convolutions(image)
        with torch.autocast(x.device.type, enabled=False):
            maps = functional.adaptive_avg_pool2d(maps.float(), (_CRNN_ROWS, maps.shape[3]))
            states, _ = self.gru(maps.flatten(1, 2).transpose(1, 2))
        y: Tensor = states.transpose(1, 2).unsqueeze(2)
        return y


def normalise_db(spectrogram_db: Tensor) -> Tensor:
    """Each clip to [0, 1]: 1 at its loudest point, 0 at 80 dB below it and less.

    Loudness depends on the distance to the microphone, so only differences within a clip count.

    Args:
        spectrogram_db: (n, bands, frames), decibel.
    """
    peak = spectrogram_db.amax(dim=(1, 2), keepdim=True)
    return ((spectrogram_db - peak + DYNAMIC_RANGE_DB) / DYNAMIC_RANGE_DB).clamp(0.0, 1.0)


def standardise(coefficients: Tensor) -> Tensor:
    """Zero mean and unit variance of each coefficient over its clip.

    Args:
        coefficients: (n, coefficients, frames); one that is constant becomes zero.
    """
    centred = coefficients - coefficients.mean(dim=2, keepdim=True)
    deviation = centred.square().mean(dim=2, keepdim=True).sqrt()
    return centred / deviation.clamp_min(_SMALLEST_DEVIATION)


def delta(coefficients: Tensor) -> Tensor:
    """Slope per frame of a line fitted to nine frames (Furui 1986); the edges are repeated.

    Args:
        coefficients: (n, coefficients, frames) -> the same shape.
    """
    steps = torch.arange(-_DELTA_REACH, _DELTA_REACH + 1).to(coefficients)
    kernel = steps / steps.square().sum()
    padded = functional.pad(coefficients, (_DELTA_REACH, _DELTA_REACH), mode="replicate")
    return padded.unfold(2, len(kernel), 1) @ kernel


def build_audio_model(config: CoughConfig, n_classes: int) -> Classifier:
    """A classifier of cough windows (n, samples) in [-1, 1].

    Raises:
        ConfigError: no such backbone.
        WeightsError: the starting weights are missing, damaged or do not fit.
    """
    model = ARCHITECTURES[config.model.architecture](config, n_classes)
    if config.model.aggregation == "attention":
        model.attend_to_instances(config.model.attention_hidden)
    return model


def split_front_end(model: Classifier) -> tuple[nn.Module, Classifier]:
    """The spectral front end, and a copy of the model that reads what the front end gives.

    Members of an ensemble have one front end, for they have one configuration and it is not
    trained. A model of images has none: `nn.Identity`.
    """
    behind = copy.deepcopy(model)
    front: nn.Module = nn.Identity()
    for part in list(behind.modules()):
        for name, child in list(part.named_children()):
            # An MFCC holds a log-mel, which goes with it.
            if isinstance(child, LogMel | Mfcc) and not isinstance(part, Mfcc):
                front = child
                setattr(part, name, nn.Identity())
    return front, behind


def _build_spectrogram_cnn(config: CoughConfig, n_classes: int) -> Classifier:
    backbone = build_backbone(config.model.backbone, config.model.weights)
    return SpectrogramCnn(config, backbone, n_classes)


#: Every cough model by its name in the configuration.
ARCHITECTURES: dict[str, Callable[[CoughConfig, int], Classifier]] = {
    "spectrogram_cnn": _build_spectrogram_cnn,
    "mfcc_lstm": MfccLstm,
    "crnn": Crnn,
}
