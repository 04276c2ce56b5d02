"""Damaged tables and configurations: one clear error of ours, never a traceback."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pulmofuse.config import dump_config, load_config, parse_config
from pulmofuse.errors import PulmofuseError
from pulmofuse.schema import manifest_frame, read_manifest, write_manifest
from pulmofuse.sources.base import read_text_table
from pulmofuse.sources.patients import read_patients

REPOSITORY = Path(__file__).resolve().parents[1]
N_EACH = 250
#: What people and spreadsheets put into cells, and what parsers stumble over.
PIECES = [
    b"", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b'"', b'""', b"'", b",", b";", b"\t", b"\r", b"\n",
    b"\n\n", b"nan", b"NaN", b"inf", b"-inf", b"1e999", b"-1", b"0", b"9" * 40, b"None", b"null",
    b"true", b"~", b"=1+1", b"../../etc/passwd", b"/etc/passwd", b"C:\\x", b"caf\xc3\xa9",
    b"caf\xe9", b"\xf0\x9f\xab\x81", b"\xe2\x80\xa8", b"{", b"}", b"[", b"]", b"[[[[", b"&a", b"*a",
    b"<<: *a", b"!!python/object/apply:os.system [x]", b"!!binary abc", b"? ", b": ", b"- ", b"#",
    b"2026-13-01", b"2026-02-30T25:00", b"0x", b"1_000", b"%", b"@", b"`", b"|", b">", b"\\",
    b"a" * 300,
]  # fmt: skip


def generator(seed: int | str) -> random.Random:
    return random.Random(seed)  # noqa: S311 - repeatable, not secret


def damaged(whole: bytes, rng: random.Random) -> bytes:
    data = bytearray(whole)
    for _ in range(rng.choice([1, 1, 2, 5])):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(5):
            case 0:
                data[at:at] = rng.choice(PIECES)
            case 1:
                data[at : at + rng.randrange(1, 12)] = rng.choice(PIECES)
            case 2:
                del data[at : at + rng.randrange(1, 40)]
            case 3:
                data[at:at] = data[at : at + rng.randrange(1, 200)]
            case 4:
                lines = bytes(data).splitlines(keepends=True) or [b""]
                rng.shuffle(lines)
                data = bytearray(b"".join(lines[: rng.randrange(1, len(lines) + 1)]))
    return bytes(data)


def manifest() -> pd.DataFrame:
    rows: list[dict[str, object]] = []
    for i in range(6):
        patient = f"clinic/p{i // 2}"
        rows.append(
            {
                "record_id": f"clinic/r{i}",
                "patient_id": patient,
                "patient_known": True,
                "modality": ("ct", "cxr", "cough")[i % 3],
                "path": f"files/{i}.png",
                "label": "covid19" if i % 2 else "normal",
                "source": "clinic",
                "split": "train",
                "age": 50.0 + i,
                "sex": "F",
                "traits": '{"width": 3}',
            }
        )
    return manifest_frame(rows)


PATIENTS = (
    b"path,patient_id,age,sex,site,split,series_id,view\n"
    b"ct/covid19/1.png,p1,41,F,north,train,s1,axial\n"
    b'ct/normal/2.png,p2,"52.5",m,"south, east",test,,\n'
    b"cough/normal,p3,,,,,,\n"
)


def survives(read: Callable[[], Any]) -> bool:
    """Whether it was read; an error of ours is as good, any other is raised."""
    try:
        read()
    except PulmofuseError as error:
        told = (error.what, error.why, error.remedy, str(error))
    else:
        return True
    assert all(told)
    assert "\n" not in told[-1]
    return False


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_manifests(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"manifest{suffix}"
    write_manifest(path, manifest())
    whole = path.read_bytes()
    assert survives(lambda: read_manifest(path))
    rng = generator(1)
    for _ in range(N_EACH):
        path.write_bytes(damaged(whole, rng))
        survives(lambda: read_manifest(path))


def test_patients(tmp_path: Path) -> None:
    path = tmp_path / "patients.csv"
    path.write_bytes(PATIENTS)
    assert survives(lambda: read_patients(tmp_path))
    rng = generator(2)
    outcomes = []
    for _ in range(2 * N_EACH):
        path.write_bytes(damaged(PATIENTS, rng))
        outcomes.append(survives(lambda: read_patients(tmp_path)))
    assert 0 < sum(outcomes) < len(outcomes)


def test_published_tables(tmp_path: Path) -> None:
    path = tmp_path / "metadata.csv"
    rng = generator(3)
    outcomes = []
    for _ in range(N_EACH):
        path.write_bytes(damaged(PATIENTS, rng))
        outcomes.append(survives(lambda: read_text_table(path, ("path", "age"), "get it again")))
    assert 0 < sum(outcomes) < len(outcomes)


@pytest.mark.parametrize(
    "name", sorted(p.relative_to(REPOSITORY).as_posix() for p in REPOSITORY.glob("studies/*.yaml"))
)
def test_study_configurations(name: str, tmp_path: Path) -> None:
    whole = (REPOSITORY / name).read_bytes()
    whole = dump_config(parse_config(whole.decode())).encode() if len(whole) < 200 else whole
    path = tmp_path / "study.yaml"
    rng = generator(name)
    outcomes = []
    for _ in range(N_EACH // 2):
        path.write_bytes(damaged(whole, rng))
        outcomes.append(survives(lambda: load_config(path)))
    assert sum(outcomes) < len(outcomes)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 2000,
        "{a: " * 3000,
        "a: &a [x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: &d [*c, *c]\n",
        "&a [*a]",
        "a: &a {b: *a}",
        "? [1, 2]\n: 3",
        "!!python/object/apply:os.system ['true']",
        "\x00",
        "- " * 4000,
        "name: " + "9" * 5000,
        "1: 2\n.nan: 3\n",
    ],
)
def test_hostile_yaml(text: str) -> None:
    assert not survives(lambda: parse_config(text))
    assert not survives(lambda: parse_config("name: x\n", [f"name={text}"]))
