"""Random traits of acquisition for training images: resolution, tone, format, borders, style.

A site shows in how its images were made: the sharpness and noise of the detector, the grey curve of
the maker, the size and the compression of the file, what stands at the border. A network that can
tell sites by these learns them instead of disease (Zech 2018). Each function below varies one of
them at random, per image, so that it tells nothing.

All functions take and return float tensors (n, 1, height, width) in [0, 1]; all draws come from
torch's global generator, on the device of the images. Only `mix_styles` lets images of a batch
touch one another. Times are CPU milliseconds for 32 images of 224 pixels on
one thread (docs/decisions/0012-unseen-sites.md).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, pad

from pulmofuse.config import ImageAugmentation

#: Side of the images for which lengths in pixels are given; at other sizes they scale.
REFERENCE_SIDE = 224
#: Unsharp masking takes its blurred copy with this standard deviation, pixels at 224.
_SHARPEN_SIGMA = 1.0
#: Width by height of a random crop, at most and at least its inverse (Szegedy 2015).
_CROP_ASPECT = 4 / 3
#: Degree of the random tone curve: its number of inner bends.
_TONE_DEGREE = 5
#: Frequencies whose amplitude is a matter of style, as a share of the side (Yang & Soatto 2020
#: use .01 to .09 about the origin).
_STYLE_BAND = 0.02
#: Qualities of JPEG that are drawn (IJG scale, 1 to 100).
_JPEG_QUALITY = (20.0, 90.0)
#: Luminance quantisation at quality 50 (ITU-T T.81, Annex K, table K.1), rows by frequency.
_JPEG_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
_BLOCK = 8


def vary_acquisition(images: Tensor, config: ImageAugmentation) -> Tensor:
    """All that `config` turns on but borders, in the order in which an image comes about.

    Framing, optics and sampling, the maker's style and curve, the file format. The very tensor
    comes back, and nothing is drawn, where all is off.
    """
    c = config
    if not (c.crop_scale < 1 or c.blur or c.sharpen or c.downscale > 1 or c.style or c.tone
            or c.jpeg):  # fmt: skip
        return images
    # Under autocast products would round grey levels to 8 bits.
    with torch.autocast(images.device.type, enabled=False):
        out = images.float()
        if c.crop_scale < 1:
            out = random_crop(out, c.crop_scale)
        if c.blur:
            out = random_blur(out, c.blur)
        if c.sharpen:
            out = random_sharpen(out, c.sharpen)
        if c.downscale > 1:
            out = random_downscale(out, c.downscale)
        if c.style:
            out = mix_styles(out, c.style)
        if c.tone:
            out = random_tone(out, c.tone)
        if c.jpeg:
            out = random_jpeg(out, c.jpeg)
        return out.to(images.dtype)


def _draw(like: Tensor, low: float, high: float) -> Tensor:
    """One draw per image: (n,)."""
    return torch.empty(len(like), device=like.device).uniform_(low, high)


def random_crop(
    images: Tensor,
    least_area: float,
    most_area: float = 1.0,
    size: tuple[int, int] | None = None,
) -> Tensor:
    """A random part of each image, of `least_area` to `most_area` of it, resized to `size`.

    Removes framing: how much of the patient is in the picture. 4 ms.

    Args:
        images: (n, 1, height, width).
        least_area: share of the area.
        most_area: the same.
        size: height and width of the result, pixels; those of the images by default.
    """
    height, width = images.shape[2:]
    area = _draw(images, least_area, most_area)
    limit = math.log(_CROP_ASPECT)
    aspect = _draw(images, -limit, limit).exp()
    rows = ((area / aspect).sqrt().clamp(max=1.0) * height).round().clamp(min=1)
    columns = ((area * aspect).sqrt().clamp(max=1.0) * width).round().clamp(min=1)
    top = (_draw(images, 0.0, 1.0) * (height - rows)).round()
    left = (_draw(images, 0.0, 1.0) * (width - columns)).round()
    places = torch.stack([top, top + rows, left, left + columns], dim=1).int().tolist()
    parts = [
        image[None, :, y0:y1, x0:x1] for image, (y0, y1, x0, x1) in zip(images, places, strict=True)
    ]
    return torch.cat([_resize(part, *(size or (height, width))) for part in parts])


def _resize(image: Tensor, height: int, width: int) -> Tensor:
    return interpolate(image, (height, width), mode="bilinear", align_corners=False)


def random_blur(images: Tensor, most: float, share: float = 1.0) -> Tensor:
    """Gaussian blur of up to `most` pixels (standard deviation, at 224), drawn per image.

    Removes the sharpness of detectors, scanners' kernels and viewers. 6 ms at 2 pixels.

    Args:
        images: (n, 1, height, width).
        most: largest standard deviation.
        share: of the images that are blurred, each by chance.
    """
    sigma = _draw(images, 0.0, most)
    if share < 1:
        sigma = sigma * (_draw(images, 0.0, 1.0) < share)
    return _gaussian_blur(images, sigma, most)


def _gaussian_blur(images: Tensor, sigma: Tensor, most: float) -> Tensor:
    """Each image with its own sigma (n,), at most `most`, in pixels at 224."""
    n = len(images)
    out = images.transpose(0, 1)  # images become channels, so that each has a kernel of its own
    for axis in (2, 3):
        scale = images.shape[axis] / REFERENCE_SIDE
        radius = max(1, math.ceil(3 * most * scale))
        at = torch.arange(-radius, radius + 1, device=images.device)
        widths = (sigma * scale).clamp(min=1e-2)[:, None]
        kernel = (-0.5 * (at / widths).square()).softmax(dim=1)
        kernel = kernel.view((n, 1, -1, 1) if axis == 2 else (n, 1, 1, -1))
        pads = (0, 0, radius, radius) if axis == 2 else (radius, radius, 0, 0)
        out = conv2d(pad(out, pads, mode="replicate"), kernel, groups=n)
    return out.transpose(0, 1)


def random_sharpen(images: Tensor, most: float) -> Tensor:
    """Unsharp masking of strength 0 to `most`, drawn per image.

    Removes the edge enhancement that makers build in. 7 ms.
    """
    strength = _draw(images, 0.0, most)[:, None, None, None]
    sigma = torch.full_like(strength.flatten(), _SHARPEN_SIGMA)
    detail = images - _gaussian_blur(images, sigma, _SHARPEN_SIGMA)
    return torch.addcmul(images, strength, detail).clamp(0.0, 1.0)


def random_downscale(images: Tensor, most: float) -> Tensor:
    """Shrink each image by up to `most` by averaging over areas, and enlarge it again.

    Removes the resolution of the file. The factor is drawn evenly on a logarithmic scale. 10 ms.
    """
    height, width = images.shape[2:]
    factors = _draw(images, 0.0, math.log(most)).exp().tolist()
    small = [
        interpolate(
            image[None],
            (max(1, round(height / factor)), max(1, round(width / factor))),
            mode="area",
        )
        for image, factor in zip(images, factors, strict=True)
    ]
    return torch.cat([_resize(image, height, width) for image in small])


def random_tone(images: Tensor, strength: float) -> Tensor:
    """A random smooth curve of grey levels per image; it never falls, and keeps black and white.

    A Bernstein polynomial with increasing coefficients, blended with the straight line: at
    `strength` 1 it is the random curve alone. Removes makers' and viewers' look-up tables,
    windows and film. 4 ms.
    """
    n, degree = len(images), _TONE_DEGREE
    steps = torch.empty(n, degree, device=images.device).exponential_()
    heights = (steps / steps.sum(dim=1, keepdim=True)).cumsum(dim=1)
    heights = torch.cat([torch.zeros(n, 1, device=images.device), heights], dim=1)
    straight = torch.linspace(0, 1, degree + 1, device=images.device)
    powers = ((1 - strength) * straight + strength * heights) @ _bernstein(degree).to(images)
    x = images.clamp(0.0, 1.0)
    out = powers[:, degree].view(n, 1, 1, 1).expand_as(x)
    for power in range(degree - 1, -1, -1):  # Horner
        out = torch.addcmul(powers[:, power].view(n, 1, 1, 1), out, x)
    return out.clamp(0.0, 1.0)


def _bernstein(degree: int) -> Tensor:
    """Row i: coefficients of 1, x, x^2 ... of the i-th Bernstein polynomial."""
    table = torch.zeros(degree + 1, degree + 1)
    for i in range(degree + 1):
        for j in range(i, degree + 1):
            table[i, j] = math.comb(degree, j) * math.comb(j, i) * (-1) ** (j - i)
    return table


def mix_styles(images: Tensor, share: float) -> Tensor:
    """Give this share of the images, in part, the low-frequency amplitudes of another one.

    Phases, which carry structure, stay; amplitudes about the origin, which carry brightness,
    exposure and the fall-off to the borders, are blended with those of a random image of the batch
    by a random weight (Yang & Soatto 2020, "FDA"; Xu 2021). Few frequencies are touched, so a
    product with their waves does what a whole Fourier transform would. 6 ms.
    """
    n, _, height, width = images.shape
    partner = torch.randperm(n, device=images.device)
    chosen = _draw(images, 0.0, 1.0) < share
    weight = (_draw(images, 0.0, 1.0) * chosen)[:, None, None]
    reach = max(1, round(_STYLE_BAND * min(height, width)))
    # Of a real image half of the plane of frequencies says all.
    down = torch.arange(-reach, reach + 1, device=images.device)
    across = torch.arange(reach + 1, device=images.device)
    columns = _waves(across, width)  # (across, w)
    rows = _waves(down, height)  # (down, h)
    along = images[:, 0] @ torch.cat([columns.real, columns.imag]).mT
    along = torch.complex(along[..., : reach + 1], along[..., reach + 1 :])  # (n, h, across)
    spectrum = rows @ along  # (n, down, across)
    amplitude = spectrum.abs()
    change = weight * (amplitude[partner] - amplitude) * torch.sgn(spectrum)
    twice = torch.where(across == 0, 1.0, 2.0)  # for the half that was left out
    back = rows.conj().mT @ (change * twice)  # (n, h, across)
    waves = columns.conj()
    added = back.real @ waves.real - back.imag @ waves.imag
    return (images + added[:, None] / (height * width)).clamp(0.0, 1.0)


def _waves(frequencies: Tensor, side: int) -> Tensor:
    """exp(-2 pi i f x / side): (frequencies, side), complex."""
    turns = frequencies[:, None] * torch.arange(side, device=frequencies.device) / side
    return torch.polar(torch.ones_like(turns), -2 * math.pi * turns)


def random_jpeg(images: Tensor, share: float) -> Tensor:
    """Compress this share of the images as JPEG does, at a random quality from 20 to 90.

    Cosine transform of blocks of 8 pixels, rounding to multiples of the standard's table, and
    back. Removes the trait of files that were compressed in some sources and not in others. 9 ms
    for half of the images.
    """
    height, width = images.shape[2:]
    quality = _draw(images, *_JPEG_QUALITY)
    chosen = _draw(images, 0.0, 1.0) < share
    picked = chosen.nonzero().flatten()
    if not len(picked):
        return images
    scale = torch.where(quality < 50, 50 / quality, 2 - quality / 50)[picked]
    table = torch.tensor(_JPEG_TABLE, device=images.device, dtype=images.dtype)
    steps = (table * scale[:, None, None]).clamp(min=1.0)[:, None, None]  # (k, 1, 1, 8, 8)
    pads = (0, -width % _BLOCK, 0, -height % _BLOCK)
    grey = pad(images[picked] * 255 - 128, pads, mode="replicate")
    high, wide = grey.shape[2] // _BLOCK, grey.shape[3] // _BLOCK
    blocks = grey.view(-1, high, _BLOCK, wide, _BLOCK).transpose(2, 3)
    cosines = _cosines().to(images)
    coded = ((cosines @ blocks @ cosines.mT) / steps).round() * steps
    decoded = (cosines.mT @ coded @ cosines).transpose(2, 3).reshape(grey.shape)
    out = images.clone()
    out[picked] = ((decoded[:, :, :height, :width] + 128) / 255).clamp(0.0, 1.0)
    return out


def _cosines() -> Tensor:
    """The orthonormal cosine transform of 8 values: (8 frequencies, 8 positions)."""
    position = torch.arange(_BLOCK) + 0.5
    table = torch.cos(math.pi / _BLOCK * torch.arange(_BLOCK)[:, None] * position)
    table[0] *= math.sqrt(0.5)
    return table * math.sqrt(2 / _BLOCK)


def mask_borders(images: Tensor, share: float) -> Tensor:
    """Cover up to `share` of the side at each border, half of the borders of all images not at all.

    The cover of an image is its mean, black, white or noise, whichever is drawn. Removes letters,
    collimator, cassette and cropping. 7 ms.
    """
    n, _, height, width = images.shape
    # Half of the draws are negative and cover nothing.
    top, bottom, left, right = (
        torch.empty(4, n, 1, device=images.device).uniform_(-share, share).unbind()
    )
    row = (torch.arange(height, device=images.device) + 0.5) / height
    column = (torch.arange(width, device=images.device) + 0.5) / width
    rows = (row < top) | (row > 1 - bottom)
    columns = (column < left) | (column > 1 - right)
    covered = (rows[:, :, None] | columns[:, None, :])[:, None]
    kind = torch.randint(4, (n, 1, 1, 1), device=images.device)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    level = torch.where(kind == 0, mean, (kind == 2).to(images.dtype))
    noise = torch.rand_like(images)
    return torch.where(covered, torch.where(kind == 3, noise, level), images)
