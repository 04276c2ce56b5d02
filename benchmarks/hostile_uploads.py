"""Send the service what nobody should: no 5xx, no hang, and less than 1.5 GiB.

    python benchmarks/hostile_uploads.py [--number 2000] [--seed 0]

Cut and mutated files, bombs (PNG, gzip, deflated DICOM, TIFF), polyglots, other types, empty ones,
NaN, absurd headers, path tricks in file names, broken forms and raw bytes. All of it is made here,
from a seed; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import gzip
import io
import random
import socket
import struct
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import serving
from pydicom.encaps import encapsulate

#: More than the service gives itself for a prediction.
_TIMEOUT_S = 60.0
_CLIENTS = 4
_MOST_MIB = 1536.0


@dataclass(frozen=True)
class Hostile:
    """One request.

    Attributes:
        family: what it tries.
        body, content_type, headers: of POST /v1/predict.
        raw: instead of all these, bytes for the socket.
    """

    family: str
    body: bytes = b""
    content_type: str = "multipart/form-data; boundary=bound"
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None


def form(*parts: tuple[str, bytes], end: bytes = b"--bound--\r\n") -> bytes:
    """A form of parts (the text after `form-data; `, content)."""
    out = b""
    for head, content in parts:
        out += b"--bound\r\nContent-Disposition: form-data; " + head.encode("utf-8", "replace")
        out += b"\r\n\r\n" + content + b"\r\n"
    return out + end


def upload(modality: str, content: bytes, name: str = "a") -> bytes:
    """A form with one file."""
    return form((f'name="{modality}"; filename="{name}"', content))


# --- files -------------------------------------------------------------------------------------


def png(
    width: int, height: int, depth: int = 8, colour: int = 0, data: bytes | None = None
) -> bytes:
    """A PNG of zeros, whatever it declares; `data` replaces its compressed rows."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + crc

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    if data is None:
        data = zlib.compress(bytes(height * (1 + width * channels * depth // 8)), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def wav(samples: bytes, *, rate: int = 16_000, channels: int = 1, bits: int = 16, form_: int = 1,
        declared: int | None = None) -> bytes:  # fmt: skip
    """A WAV whose header says whatever it is told."""
    block = channels * bits // 8
    fmt = struct.pack(
        "<HHIIHH", form_, channels & 0xFFFF, rate & 0xFFFFFFFF, rate * block & 0xFFFFFFFF,
        block & 0xFFFF, bits,
    )  # fmt: skip
    size = len(samples) if declared is None else declared
    body = b"WAVEfmt " + struct.pack("<I", 16) + fmt + b"data" + struct.pack("<I", size) + samples
    return b"RIFF" + struct.pack("<I", len(body) & 0xFFFFFFFF) + body


def nifti(shape: tuple[int, ...], *, code: int = 16, bits: int = 32, values: bytes = b"") -> bytes:
    """A NIfTI-1 header of any shape, with these values."""
    head = bytearray(352)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, len(shape), *shape, *[1] * (7 - len(shape)))
    struct.pack_into("<hh", head, 70, code, bits)
    struct.pack_into("<8f", head, 76, *[1.0] * 8)
    struct.pack_into("<fff", head, 108, 352.0, 1.0, 0.0)
    head[344:348] = b"n+1\0"
    return bytes(head) + values


def dicom(rows: int, columns: int, pixels: bytes, **elements: Any) -> bytes:
    """A DICOM file of 16 bits."""
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = elements.pop("syntax", ExplicitVRLittleEndian)
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid(entropy_srcs=["hostile"])
    dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    facts = {
        "PatientName": "Miller^John", "Modality": "DX", "Rows": rows, "Columns": columns,
        "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 16,
        "BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0, **elements,
    }  # fmt: skip
    for name, value in facts.items():
        setattr(dataset, name, value)
    dataset.PixelData = pixels
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def tiff(entries: list[tuple[int, int, int, int]], following: int = 0) -> bytes:
    """A little-endian TIFF with one directory of (tag, type, count, value)."""
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + struct.pack("<I", following)


def volume(rng: random.Random, slices: int, bits: int) -> bytes:
    """A packed volume of 512 x 512 that unpacks as far as a reader lets it (200 times)."""
    n_bytes = slices * 512 * 512 * bits // 8
    noise = rng.randbytes(n_bytes // 150)
    code = {16: 4, 64: 64}[bits]
    if bits == 64:  # random bytes are NaN now and then
        noise = struct.pack("<d", 0.5) + b"".join(struct.pack("<d", b) for b in noise[::8])
    values = noise + bytes(n_bytes - len(noise))
    return gzip.compress(nifti((512, 512, slices), code=code, bits=bits, values=values), 1)


def good_files() -> dict[str, list[bytes]]:
    """Files that can be read, to be broken: modality -> contents."""
    import cv2
    import numpy as np
    import soundfile

    from pulmofuse.sources.phantom import draw_cough, draw_ct, draw_cxr

    rng = np.random.default_rng(0)
    picture = draw_cxr(rng, 128, {}, female=False, coarse=False)
    slice_ = draw_ct(rng, 128, {}, female=False, coarse=False)
    cough = draw_cough(rng, {}, female=False, coarse=False)
    wide = picture.astype(np.uint16) * 16
    sounds = []
    for kind, subtype in (("WAV", None), ("FLAC", None), ("OGG", None), ("MP3", None)):
        out = io.BytesIO()
        soundfile.write(out, cough, 16_000, format=kind, subtype=subtype)
        sounds.append(out.getvalue())
    encoded = [bytes(cv2.imencode(f".{k}", picture)[1]) for k in ("png", "jpg", "tiff", "bmp")]
    volume = (slice_.astype(np.int16) * 8 - 1000)[None].repeat(4, 0)
    return {
        "cxr": [*encoded, dicom(128, 128, wide.tobytes())],
        "ct": [
            bytes(cv2.imencode(".png", slice_)[1]),
            gzip.compress(nifti((128, 128, 4), code=4, bits=16, values=volume.tobytes())),
        ],
        "cough": sounds,
    }


# --- families ----------------------------------------------------------------------------------

Family = Callable[[random.Random, dict[str, list[bytes]]], Hostile]


def _any(rng: random.Random, good: dict[str, list[bytes]]) -> tuple[str, bytes]:
    modality = rng.choice(sorted(good))
    return modality, rng.choice(good[modality])


def cut(rng: random.Random, good: dict[str, list[bytes]]) -> Hostile:
    """A file that ends too early."""
    modality, data = _any(rng, good)
    return Hostile("cut", upload(modality, data[: rng.randrange(len(data))]))


def mutated(rng: random.Random, good: dict[str, list[bytes]]) -> Hostile:
    """A file with some bytes changed, most of them in its head."""
    modality, data = _any(rng, good)
    changed = bytearray(data)
    for _ in range(rng.choice([1, 3, 30, 300])):
        most = rng.choice([64, 512, len(changed)])
        changed[rng.randrange(min(most, len(changed)))] = rng.randrange(256)
    return Hostile("mutated", upload(modality, bytes(changed)))


def spliced(rng: random.Random, good: dict[str, list[bytes]]) -> Hostile:
    """The head of one file and the tail of another; polyglots."""
    (modality, one), (_, other) = _any(rng, good), _any(rng, good)
    head = rng.choice(
        [one[: rng.randrange(1, 600)], b"%PDF-1.7\n", b"GIF89a<script>alert(1)</script>",
         b"PK\x03\x04" + bytes(26), b"<html><script>", b"MZ", b"\x7fELF"]
    )  # fmt: skip
    tail = rng.choice([other, b"PK\x05\x06" + bytes(18), b"<?php system($_GET[0]); ?>"])
    return Hostile("polyglot", upload(modality, rng.choice([head + tail, one + tail])))


def wrong_type(rng: random.Random, _: dict[str, list[bytes]]) -> Hostile:
    """Something else altogether."""
    content = rng.choice(
        [
            b"", b"\0", b"\0" * 100_000, b"\xff" * 1000, rng.randbytes(5000), b"hello " * 500,
            b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
            b"<!DOCTYPE a [<!ENTITY b 'bb'><!ENTITY c '&b;&b;&b;'>]><a>&c;</a>",
            b"\x80\x04\x95\x1e\0\0\0\0\0\0\0\x8c\x02os\x8c\x06system\x93\x8c\x02id\x85R.",
            b"\x93NUMPY\x01\0v\0{'descr': '|O', 'fortran_order': False, 'shape': (1,)}" + b" " * 60,
            b"SQLite format 3\0" + bytes(84), b"\x1f\x8b" + rng.randbytes(50),
            b"PK\x03\x04" + rng.randbytes(200), b"{" * 10_000, b"[" * 100_000,
        ]
    )  # fmt: skip
    return Hostile("type", upload(rng.choice(["ct", "cxr", "cough"]), content))


def bomb(rng: random.Random, _: dict[str, list[bytes]]) -> Hostile:
    """A small file that declares, or unpacks to, a large one."""
    zeros = zlib.compress(bytes(1 << 20), 9)
    side = rng.choice([30_000, 65_535, 2**31 - 1])
    chosen = rng.choice(
        [
            ("cxr", lambda: png(side, side, data=zeros)),
            ("cxr", lambda: png(64, 64, data=zeros)),
            ("cxr", lambda: png(3000, 3000, 16, 2)),
            ("ct", lambda: gzip.compress(nifti((512, 512, 2000)) + bytes(1 << 20))),
            ("ct", lambda: gzip.compress(gzip.compress(bytes(10 << 20)))),
            ("ct", lambda: gzip.compress(nifti((32_767, 32_767, 32_767)))),
            ("cxr", lambda: _deflated(40 << 20)),
            ("cxr", lambda: dicom(65_535, 65_535, bytes(64))),
            ("ct", lambda: dicom(64, 64, bytes(8192), NumberOfFrames=2_000_000_000)),
            ("cxr", lambda: tiff([(256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, 8)])),
            ("cxr", lambda: b"BM" + struct.pack("<IHHIIiiHHI", 54, 0, 0, 54, 40, side & 0x7FFFFFFF,
                                                side & 0x7FFFFFFF, 1, 24, 0) + bytes(20)),
        ]
    )  # fmt: skip
    return Hostile("bomb", upload(chosen[0], chosen[1]()))


def _deflated(n_bytes: int) -> bytes:
    """A DICOM file whose data set is deflated zeros."""
    plain = dicom(64, 64, bytes(8192), syntax="1.2.840.10008.1.2.1.99")
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return plain[:400] + packer.compress(bytes(n_bytes)) + packer.flush()


def large(rng: random.Random, _: dict[str, list[bytes]]) -> Hostile:
    """As large as may be: what just keeps the limits, and what just does not."""
    chosen = rng.choice(
        [
            ("cxr", lambda: png(4000, 4000)),
            ("cxr", lambda: png(4000, 4000, 16, 6)),
            ("cxr", lambda: png(4001, 4000)),
            ("ct", lambda: volume(rng, 60, 64)),
            ("ct", lambda: volume(rng, 122, 16)),
            ("ct", lambda: volume(rng, 123, 16)),
            ("cough", lambda: wav(rng.randbytes(65_536) * 180)),
            ("cough", lambda: wav(rng.randbytes(65_536) * 190)),
            ("cough", lambda: bytes(65 << 20)),
        ]
    )
    return Hostile("large", upload(chosen[0], chosen[1]()))


def absurd(rng: random.Random, good: dict[str, list[bytes]]) -> Hostile:
    """Headers and values that no file has."""
    nan = struct.pack("<f", float("nan"))
    picture = rng.randbytes(2 * 64 * 64)
    packed = encapsulate([picture])  # as if it were JPEG 2000
    chosen = rng.choice(
        [
            ("ct", lambda: nifti((64, 64, 2), values=nan * 8192)),
            ("ct", lambda: nifti((64, 64), values=struct.pack("<f", float("inf")) * 4096)),
            ("ct", lambda: nifti((-5, 64, 2), values=bytes(32_768))),
            ("ct", lambda: nifti((0, 0, 0))),
            ("ct", lambda: nifti((64, 64, 2, 5), values=bytes(163_840))),
            ("ct", lambda: nifti((64, 64, 2), code=9999, bits=7, values=bytes(32_768))),
            ("ct", lambda: nifti((64, 64, 2), code=128, bits=24, values=bytes(24_576))),
            ("cough", lambda: wav(nan * 16_000, bits=32, form_=3)),
            ("cough", lambda: wav(bytes(32_000), rate=0)),
            ("cough", lambda: wav(rng.randbytes(32_000), rate=2**32 - 1)),
            ("cough", lambda: wav(rng.randbytes(32_000), channels=65_535)),
            ("cough", lambda: wav(rng.randbytes(32_000), channels=0)),
            ("cough", lambda: wav(rng.randbytes(32_000), bits=0)),
            ("cough", lambda: wav(rng.randbytes(32_000), declared=2**32 - 1)),
            ("cough", lambda: wav(rng.randbytes(2))),
            ("cough", lambda: wav(bytes(64_000))),
            ("cxr", lambda: dicom(64, 64, picture, BitsStored=99, HighBit=98)),
            ("cxr", lambda: dicom(64, 64, picture, PhotometricInterpretation="PALETTE COLOR")),
            ("cxr", lambda: dicom(64, 64, picture, RescaleSlope="1e308", RescaleIntercept="1e308")),
            ("cxr", lambda: dicom(64, 64, picture, WindowWidth="-1", WindowCenter="0")),
            ("cxr", lambda: dicom(64, 64, picture[:100])),
            ("cxr", lambda: dicom(64, 64, packed, syntax="1.2.840.10008.1.2.4.90")),
            ("cxr", lambda: dicom(64, 64, picture).replace(b"1.2.840.10008.1.2.1\0", b"1.2.3" * 4)),
            ("cxr", lambda: tiff([(256, 4, 1, 64), (257, 4, 1, 64)], following=8)),
            ("cxr", lambda: tiff([(256, 4, 2**32 - 1, 8), (322, 4, 1, 1), (323, 4, 1, 1)])),
            ("cxr", lambda: png(64, 64, data=b"not zlib")),
            ("cxr", lambda: b"\xff\xd8" + b"\xff\xe1\xff\xff" * 10_000),
            ("cxr", lambda: good["cxr"][1][:200] + b"\xff\xda\0\x08\x01\x01\0\0\x3f\0" * 20_000),
            ("cough", lambda: b"OggS" * 10_000),
            ("cough", lambda: b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + bytes(1000)),
            ("cough", lambda: b"\x1aE\xdf\xa3" + rng.randbytes(3000)),
            ("cough", lambda: b"\0\0\0\x20ftypisom" + rng.randbytes(3000)),
        ]
    )  # fmt: skip
    return Hostile("absurd", upload(chosen[0], chosen[1]()))


def named(rng: random.Random, good: dict[str, list[bytes]]) -> Hostile:
    """A good file under a bad name."""
    modality, data = _any(rng, good)
    name = rng.choice(
        ["../../../etc/passwd", "..\\..\\windows\\win.ini", "a\0.png", "C:\\a", "/dev/zero", "|id",
         "$(id)", "\u202egnp.exe", "é" * 900, "a" * 3900, '"; name="ct', "CON", ".", "", "%00",
         "<img src=x onerror=alert(1)>", "\x7f\x01", "'; DROP TABLE predictions; --"]
    )  # fmt: skip
    return Hostile("name", upload(modality, data, name))


def fields(rng: random.Random, good: dict[str, list[bytes]]) -> Hostile:
    """Fields that mean nothing, or too much."""
    file = ('name="cxr"; filename="a"', good["cxr"][0])
    name = rng.choice(["method", "leave_out", "prevalence", "explain", "x" * 300, "__proto__", ""])
    value = rng.choice(
        [b"", b"nan", b"1e999", b"-0", b"0x1", b"true", b"cxr", b"\xff\xfe", b"a" * 300,
         b"' OR 1=1 --", "٠.٥".encode(), b"mean\r\nX: y", b"{{7*7}}", b"1" * 250]
    )  # fmt: skip
    parts = [file] + [(f'name="{name}"', value)] * rng.choice([1, 1, 1, 2, 20, 1000])
    return Hostile("fields", form(*parts))


def broken_form(rng: random.Random, good: dict[str, list[bytes]]) -> Hostile:
    """A body that is no form, or half of one."""
    whole = upload("cxr", good["cxr"][0])
    body, kind = rng.choice(
        [
            (whole[: rng.randrange(len(whole))], "multipart/form-data; boundary=bound"),
            (whole, "multipart/form-data"),
            (whole, "multipart/form-data; boundary=other"),
            (whole, f"multipart/form-data; boundary={'b' * 300}"),
            (whole, 'multipart/form-data; boundary="'),
            (whole, "application/json"),
            (whole, "text/plain; charset=utf-7"),
            (b"", "multipart/form-data; boundary=bound"),
            (b"cxr=1", "application/x-www-form-urlencoded"),
            (b"--bound\r\n" * 5000, "multipart/form-data; boundary=bound"),
            (b"--bound\r\n" + b"X: y\r\n" * 5000, "multipart/form-data; boundary=bound"),
            (b"--bound\r\nX: " + b"y" * 50_000, "multipart/form-data; boundary=bound"),
            (form(("", b"x")), "multipart/form-data; boundary=bound"),
            (rng.randbytes(3000), "multipart/form-data; boundary=bound"),
        ]
    )  # fmt: skip
    return Hostile("form", body, kind)


def headers(rng: random.Random, good: dict[str, list[bytes]]) -> Hostile:
    """Headers of the request that are too long, too many, or lies."""
    head = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\n"
    raw = rng.choice(
        [
            head + b"X: " + b"y" * rng.choice([20_000, 200_000]) + b"\r\n\r\n",
            head + b"X: y\r\n" * rng.choice([200, 5000]) + b"\r\n",
            head + b"Content-Length: 10\r\nContent-Length: 20\r\n\r\n0123456789",
            head + b"Content-Length: -1\r\n\r\n",
            head + b"Content-Length: 99999999999999999999\r\n\r\nabc",
            head + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /",
            head + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\nabc",
            head + b"Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
            b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /../../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /%2e%2e%2f%00 HTTP/1.0\r\n\r\n", b"\x16\x03\x01" + rng.randbytes(300),
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", rng.randbytes(2000), b"\r\n" * 1000,
            head + b"Host: y\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        ]
    )  # fmt: skip
    if rng.random() < 0.3:
        odd = rng.choice([{"Idempotency-Key": "x" * 500}, {"Idempotency-Key": "\t"},
                          {"Content-Encoding": "gzip"}, {"Expect": "100-continue"}])  # fmt: skip
        return Hostile("headers", upload("cxr", good["cxr"][0]), headers=odd)
    return Hostile("headers", raw=raw)


#: How often each comes among twenty.
FAMILIES: dict[Family, int] = {
    cut: 3, mutated: 5, spliced: 2, wrong_type: 2, bomb: 2, absurd: 2, named: 1, fields: 1,
    broken_form: 1, headers: 1,
}  # fmt: skip
_LARGE_EVERY = 50
_EXPLAIN = form(('name="explain"', b"true"), end=b"")


def hostile(number: int, seed: int) -> Iterator[Hostile]:
    """So many requests, the same for the same seed; every other one asks for an explanation."""
    rng, good = random.Random(seed), good_files()  # noqa: S311
    kinds, weights = list(FAMILIES), list(FAMILIES.values())
    for i in range(number):
        kind = large if i % _LARGE_EVERY == _LARGE_EVERY - 1 else rng.choices(kinds, weights)[0]
        one = kind(rng, good)
        yield replace(one, body=_EXPLAIN + one.body) if i % 2 else one


def send(session: httpx.Client, port: int, one: Hostile, key: str) -> int:
    """The status that came back; 0 where the server closed without a word."""
    if one.raw is not None:
        return _send_raw(port, one.raw)
    heads = {"X-API-Key": key, "Content-Type": one.content_type, **one.headers}
    return session.post("/v1/predict", content=one.body, headers=heads).status_code


def _send_raw(port: int, raw: bytes) -> int:
    try:
        with socket.create_connection((serving.HOST, port), timeout=_TIMEOUT_S) as connection:
            connection.sendall(raw)
            connection.shutdown(socket.SHUT_WR)
            words = connection.recv(4096).split()
    except (ConnectionError, BrokenPipeError):
        return 0
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0


def run(bundle: Path, home: Path, number: int, seed: int, by: serving.Spawn = serving.spawn) -> Any:
    """Send them all, a few at a time; what came back, how long it took, and the peak memory."""
    from pulmofuse.service import Trail, open_database

    database = str(home / "hostile.sqlite")
    trail = Trail(open_database(database))
    key = trail.add_key("hostile")
    trail.close()
    server = serving.Server.of_bundle(
        bundle, database, home / "hostile.log", "--rate-per-minute", "1e6", "--burst", "100000",
        by=by,
    )  # fmt: skip
    found: Counter[str] = Counter()
    slowest = 0.0
    bad: list[str] = []
    with (
        server,
        httpx.Client(base_url=server.url, timeout=_TIMEOUT_S) as session,
        ThreadPoolExecutor(_CLIENTS) as pool,
    ):
        server.start()
        before = server.peak_mib()

        def ask(one: Hostile) -> tuple[Hostile, int, float]:
            begun = time.perf_counter()
            try:
                status = send(session, server.port, one, key)
            except httpx.ReadTimeout:
                status = -1
            except httpx.TransportError:
                status = 0
            return one, status, time.perf_counter() - begun

        # Not all at once: `map` would make every file before the first is sent.
        requests = hostile(number, seed)
        while some := [one for _, one in zip(range(2 * _CLIENTS), requests, strict=False)]:
            for one, status, seconds in pool.map(ask, some):
                found[f"{one.family} {status}"] += 1
                slowest = max(slowest, seconds)
                if status >= 500 or status < 0:
                    bad.append(f"{one.family} {status} {one.body[:200]!r}")
        alive = session.get("/readyz").status_code
        peak = server.peak_mib()
        code = server.stop()
    return {
        "sent": sum(found.values()), "answers": dict(sorted(found.items())), "bad": bad,
        "slowest_s": round(slowest, 2), "ready_after": alive, "exit_code": code,
        "peak_mib_before": round(before), "peak_mib": round(peak),
    }  # fmt: skip


def main() -> None:
    """Run it and write the result."""
    import sys

    import machine

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    facts = machine.facts()
    with tempfile.TemporaryDirectory() as folder:
        bundle = serving.make_bundle(Path(folder) / "bundle")
        found = run(bundle, Path(folder), options.number, options.seed)
    machine.write("hostile_uploads", "python benchmarks/hostile_uploads.py", found, facts)
    if found["bad"] or found["ready_after"] != 200 or found["peak_mib"] > _MOST_MIB:
        sys.exit("the service did not stand it")


if __name__ == "__main__":
    main()
