"""Fill the tables of docs/performance.md and docs/runtime.md from benchmarks/results/*.json.

    python benchmarks/tables.py [--check]

A table stands between `<!-- NAME -->` and `<!-- end NAME -->`, NAME being that of a result file.
With --check nothing is written, and the exit code is 1 where a page and the results differ.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

PAGES = [Path(__file__).parents[1] / "docs" / name for name in ("performance.md", "runtime.md")]
RESULTS = Path(__file__).parent / "results"
_BUSY = 0.1


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table; the first column is text, the others are figures."""
    names = list(head)
    lines = [names, ["---", *["---:"] * (len(names) - 1)], *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def where(content: dict[str, Any]) -> str:
    """One sentence on the machine, the date and the command."""
    m = content["machine"]
    flags = [flag for flag in m["flags"] if "bf16" in flag] or ["no bf16 instructions"]
    busy = m["busy_cores_at_start"] or 0.0
    note = f" **{busy:.1f} cores were busy with other work.**" if busy > _BUSY else ""
    return (
        f"`{content['command']}`, {m['date']}: {m['cpu']} ({', '.join(flags)}), {m['cores']} cores,"
        f" {m['threads']} thread(s), torch {m['versions']['torch']}.{note}"
    )


def training_speed(r: dict[str, Any]) -> str:
    """Epochs side by side, then the parts of ours."""
    plain, ours = r["plain"], r["ours"]
    epochs = table(
        ("", "plain loop", "ours", "times faster"),
        [
            (
                "first epoch, s (ours with making the cache)",
                plain["epoch_s"][0],
                ours["first_epoch_s"],
                r["times_faster_first_epoch"],
            ),
            ("later epoch, s", plain["epoch_s"][-1], ours["steady_epoch_s"], r["times_faster"]),
            ("images/s", r["images_per_s"]["plain"], r["images_per_s"]["ours"], ""),
        ],
    )
    ordered = sorted(ours["parts_s"].items(), key=lambda item: -item[1])
    parts = table(
        ("part of our later epoch", "s", "share"),
        [
            *((name, f"{s:.3f}", percent(ours["parts_share"][name])) for name, s in ordered),
            (
                "**outside forward and backward**",
                "",
                f"**{percent(ours['outside_forward_backward'])}**",
            ),
        ],
    )
    workers = f"The plain loop ran with {plain['workers']} workers, the faster choice."
    files = f"{r['train_files']} files, {r['val_files']} more for validation. {workers}"
    return f"{files}\n\n{epochs}\n\n{parts}"


def backbones(r: dict[str, Any]) -> str:
    """One row per backbone."""
    peaks = r["peak_gflop_per_s"]
    head = ("backbone", "GFLOP", "train plain", "train ours", "", "share of bf16 peak")
    rows = [
        (
            name,
            b["gflop_per_image"]["infer"],
            b["images_per_s"]["train_plain"],
            b["images_per_s"]["train_ours"],
            f"× {b['times_faster']['train']}",
            percent(b["share_of_bf16_peak_train"]),
            b["images_per_s"]["infer_plain"],
            b["images_per_s"]["infer_ours"],
            f"× {b['times_faster']['infer']}",
            percent(b["share_of_fp32_peak_infer"]),
        )
        for name, b in r["backbones"].items()
    ]
    peak = (
        f"Matrix peak: float32 {peaks['float32']:.0f}, bfloat16 {peaks['bfloat16']:.0f} GFLOP/s."
        f" Images/s at {r['size']} px, batch {r['batch']}; GFLOP of one forward pass."
    )
    more = ("infer plain", "infer ours", "", "share of fp32 peak")
    return f"{peak}\n\n{table((*head, *more), rows)}"


def audio_features(r: dict[str, Any]) -> str:
    """Warm, cold and error."""
    warm = table(
        ("warm, ms per clip", "librosa", "ours, one by one", "", "ours, batched", ""),
        [
            (
                name,
                w["ms_per_clip"]["librosa"],
                w["ms_per_clip"]["ours_one_by_one"],
                f"× {w['times_faster_one_by_one']}",
                w["ms_per_clip"]["ours_batched"],
                f"× {w['times_faster_batched']}",
            )
            for name, w in r["warm"].items()
        ],
    )
    cold = r["cold"]
    ways = {
        "librosa_no_cache": "librosa, nothing compiled yet",
        "librosa_cached": "librosa, compiled by an earlier process",
        "ours_spectra": "`pulmofuse.spectra` (numpy)",
        "ours_torch": "`prepare` and `Mfcc` (torch)",
    }
    rows = [
        (
            title,
            cold[way]["wall_s"],
            cold[way]["cpu_s"],
            *(
                f"× {cold['librosa_no_cache'][kind] / cold[way][kind]:.1f}"
                for kind in ("wall_s", "cpu_s")
            ),
        )
        for way, title in ways.items()
    ]
    head = ("one file in a new process", "clock, s", "processor, s", "by clock", "by processor")
    errors = table(
        ("largest difference", "log-mel, dB", "MFCC"),
        [(name, e["log_mel_db"], e["mfcc"]) for name, e in r["largest_difference"].items()],
    )
    return f"{warm}\n\n{table(head, rows)}\n\n{errors}"


def memory(r: dict[str, Any]) -> str:
    """Resident MiB by number of rows."""
    rows = []
    for n, run in r["by_rows"].items():
        for key, title in (
            ("epoch_tiny_network", "an epoch, tiny network"),
            ("network", r["backbone"]),
        ):
            part, along = run[key], run[key]["along_the_epoch"]
            rss = " → ".join(str(step["rss"]) for step in along)
            highest = part["highest"]
            rows.append(
                (
                    f"{n}, {title}",
                    rss,
                    highest["anon"],
                    highest["file"],
                    highest["rss"],
                    part["peak"],
                )
            )
    head = ("images, what", "RSS along it", "anon", "file", "RSS", "peak of the process")
    growth = r["growth_of_epoch_peak_mib"]
    return (
        f"MiB; images of {r['size']} px, batch {r['batch']}.\n\n{table(head, rows)}\n\n"
        f"Peak of the epoch from the smallest to the largest: {growth:+d} MiB."
    )


def runtime(r: dict[str, Any]) -> str:
    """One table for each input, one row for each runtime and number of threads."""
    out = []
    head = ("runtime, threads", "p50, ms", "p95, ms", f"per s, batch of {r['batch']}")
    more = ("p50, times torch's speed", "largest difference of a probability", "ready after, s")
    for name in ("image", "cough"):
        rows = []
        for threads, measured in r["threads"].items():
            runtimes = measured[name]["runtimes"]
            for label, row in runtimes.items():
                gain = runtimes["torch"]["p50_ms"] / row["p50_ms"]
                rows.append(
                    (
                        f"{label}, {threads}", row["p50_ms"], row["p95_ms"], row["per_s"],
                        f"× {gain:.2f}", row["largest_difference"], row["ready_s"],
                    )
                )  # fmt: skip
        out.append(f"One {name}:\n\n{table((*head, *more), rows)}")
    for modality, found in r.get("study", {}).items():
        rows = [
            (label, row["auc"], f"{row['change']:+.4f}", "yes" if row["allowed"] else "**no**")
            for label, row in found["runtimes"].items()
        ]
        head = ("runtime", "test AUC", "change", "within .005")
        out.append(f"The study's {modality}, {found['records']} records:\n\n{table(head, rows)}")
    return "\n\n".join(out)


def percent(share: float) -> str:
    """A share as a percentage."""
    return f"{100 * share:.1f} %"


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "training_speed": training_speed,
    "backbones": backbones,
    "audio_features": audio_features,
    "memory": memory,
    "runtime": runtime,
}


def filled(page: str) -> str:
    """The page with every table made from its results; where there are none it says so."""
    for name, render in TABLES.items():
        path = RESULTS / f"{name}.json"
        text = "Not measured yet."
        if path.exists():
            content = json.loads(path.read_text(encoding="utf-8"))
            text = f"{where(content)}\n\n{render(content['results'])}"
        block = f"<!-- {name} -->\n{text}\n<!-- end {name} -->"
        page = re.sub(
            rf"<!-- {name} -->.*?<!-- end {name} -->", lambda _, b=block: b, page, flags=re.DOTALL
        )
    return page


def main() -> None:
    """Fill or check the pages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    for page in PAGES:
        before = page.read_text(encoding="utf-8")
        after = filled(before)
        if not arguments.check:
            page.write_text(after, encoding="utf-8")
        elif before != after:
            sys.exit(f"docs/{page.name} differs from benchmarks/results; run benchmarks/tables.py")


if __name__ == "__main__":
    main()
