"""The table of docs/formats.md: what becomes of every test file that ships with pydicom.

    python scripts/formats_table.py          prints the table
    python scripts/formats_table.py --write  puts it into docs/formats.md

tests/io/test_formats_doc.py holds that the page is what this script writes.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import pydicom.data

from pulmofuse.errors import UnreadableFile
from pulmofuse.io import read_image

PAGE = Path(__file__).resolve().parents[1] / "docs" / "formats.md"
BEGIN, END = "<!-- pydicom files: begin -->\n", "<!-- pydicom files: end -->\n"
_ROOT = Path(pydicom.data.__file__).parent / "test_files"
#: Programs beside the data, and what Python leaves behind when it runs them.
_NO_DATA = {".py", ".pyc"}


def main() -> None:
    """Print the table, or put it between its marks."""
    parser = argparse.ArgumentParser(description="what becomes of pydicom's test files")
    parser.add_argument("--write", action="store_true", help="put the table into docs/formats.md")
    if parser.parse_args().write:
        PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(table(), end="")  # noqa: T201 - a script for the console


def with_table(page: str) -> str:
    """The page with a new table between its marks."""
    before, rest = page.split(BEGIN)
    return before + BEGIN + table() + END + rest.split(END)[1]


def table() -> str:
    """One row per file in Markdown; files of one folder with one outcome share a row."""
    rows = [(path.relative_to(_ROOT), *outcome(path)) for path in sorted(_files())]
    counts = Counter(read for _, read, _ in rows)
    lines = [
        f"{len(rows)} files of pydicom {pydicom.__version__}:"
        f" {counts['read']} read, {counts['refused']} refused.\n",
        "| file | outcome | what was read, or why not |",
        "|---|---|---|",
    ]
    shared = Counter((path.parts[0], *rest) for path, *rest in rows if len(path.parts) > 2)
    for path, read, detail in rows:
        if len(path.parts) <= 2:
            lines.append(f"| `{path.as_posix()}` | {read} | {detail} |")
    for (folder, read, detail), n in sorted(shared.items()):
        lines.append(f"| {n} files in folders of `{folder}/` | {read} | {detail} |")
    return "\n".join(lines) + "\n"


def outcome(path: Path) -> tuple[str, str]:
    """Whether a file is read or refused, and the detail."""
    try:
        image = read_image(path)
    except UnreadableFile as error:
        return "refused", error.why
    traits = image.traits
    unit = "HU" if image.hounsfield else "[0, 1]"
    depth = f"{traits['bit_depth']} bit" + (" colour" if traits["colour"] else "")
    size = " x ".join(str(n) for n in image.pixels.shape)
    return "read", f"{size}, {unit}; {depth}, {traits['compression']}"


def _files() -> list[Path]:
    return [p for p in _ROOT.rglob("*") if p.is_file() and p.suffix not in _NO_DATA]


if __name__ == "__main__":
    main()
