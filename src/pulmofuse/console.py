"""What a person sees on the terminal: progress, tables, lists of files left out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    import pandas as pd
    from rich.progress import Progress
    from rich.text import Text

_SHOWN = {"accuracy": "acc.", "recall": "sens.", "specificity": "spec.", "f1": "F1"}
#: Rows of a list of files; the whole list is written to a file.
_MOST_FILES = 20


class Display:
    """Progress for a person: a bar on a terminal, a line per step elsewhere."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)
        self._progress: Progress | None = None
        self._title = ""

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def step(self, title: str) -> None:
        """A step begins."""
        self._stop()
        self._title = title
        if not self._console.is_terminal:
            return
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", style="dim", markup=False),
            console=self._console,
            transient=True,
        )
        self._progress.start()
        self._progress.add_task(title, total=None, note="")

    def update(self, done: int, total: int, note: str = "") -> None:
        """`done` of `total` units are done."""
        if self._progress is not None:
            task = self._progress.task_ids[0]
            self._progress.update(task, completed=done, total=total, note=note)

    def finish(self, note: str) -> None:
        """The step is over."""
        self._stop()
        from rich.text import Text

        # A path may hold what rich takes for markup: "[b]".
        line = Text.assemble(("✓", "green"), f" {self._title}: {note}")
        self._console.print(line, soft_wrap=True)

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def cells(*values: object) -> list[Text]:
    """Cells as they stand: rich would take a path such as "[covid] 1.png" for markup."""
    from rich.text import Text

    return [Text(str(value)) for value in values]


def print_table(frame: pd.DataFrame, title: str) -> None:
    """Print a table to standard output."""
    from rich.console import Console
    from rich.table import Table

    # No frame: a comparison must fit the 80 columns of a log.
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    (table.title,), table.title_justify = cells(title), "left"
    for column in cells(*frame.columns):
        table.add_column(column, overflow="fold")
    for row in frame.itertuples(index=False):
        table.add_row(*cells(*row))
    Console().print(table)


def print_exclusions(exclusions: pd.DataFrame) -> None:
    """Print the first files that were left out, and how many there are."""
    if exclusions.empty:
        return
    counts = exclusions.groupby("reason", sort=False)["path"].agg(["size", "first"])
    if len(counts) < len(exclusions) > _MOST_FILES:
        # A thousand lines of one reason tell less than one line that counts them.
        counts = counts.sort_values("size", ascending=False, kind="stable").reset_index()
        shown = counts.rename(columns={"size": "files", "first": "such as"}).head(_MOST_FILES)
        print_table(shown[["files", "reason", "such as"]], f"{len(exclusions):,} files left out")
        typer.echo("(the whole list: --out)")
        return
    rows = exclusions[["path", "reason", "remedy"]].head(_MOST_FILES)
    print_table(rows, f"{len(exclusions):,} files left out")
    if len(exclusions) > _MOST_FILES:
        typer.echo(f"… and {len(exclusions) - _MOST_FILES:,} more (write them all with --out)")


def print_comparison(table: pd.DataFrame) -> None:
    """Print the comparison of subsets and methods on the test patients."""
    shown = table[["subset", "method"]].copy()
    shown["AUC [95 %]"] = [
        interval(*row) for row in table[["roc_auc", "roc_auc_low", "roc_auc_high"]].to_numpy()
    ]
    for name, title in _SHOWN.items():
        shown[title] = [figure(value) for value in table[name]]
    simulated = bool(table["simulated"].any())
    shown["n"] = [
        f"{n}*" if s else str(n)
        for n, s in zip(table["n_patients"], table["simulated"], strict=True)
    ]
    print_table(shown, "Test patients")
    if simulated:
        typer.echo("* simulated patients: records of one class joined, not the same person")


def print_crossval(table: pd.DataFrame) -> None:
    """Print the figures of a cross-validation, its controls beside them."""
    columns = list(table.columns)
    titles = {"ensemble": "ens.", "published": "publ."}
    titles |= {name: name.replace("_", "\n") for name in columns[columns.index("seeds") + 1 :]}
    for (modality, protocol), part in table.groupby(["modality", "protocol"], sort=False):
        # A blank, so that a long name breaks there and nowhere else.
        shown = part["metric"].str.replace(".", " ", n=1, regex=False).to_frame()
        shown["mean [95 %]"] = [interval(*row) for row in part[["value", "low", "high"]].to_numpy()]
        shown["seeds"] = [
            "–" if math.isnan(low) else f"{low:.3f}–{high:.3f}"
            for low, high in part[["lowest", "highest"]].to_numpy()
        ]
        for name, title in titles.items():
            if part[name].notna().any():
                shown[title] = [figure(value) for value in part[name]]
        what = "image less patient" if "-" in str(protocol) else f"folds by {protocol}"
        n = f"{part['n'].iloc[0]:,} records of {part['n_patients'].iloc[0]:,} patients"
        print_table(shown, f"{modality}, {what}: {n}")


def figure(value: float | None) -> str:
    """A figure, or a dash where it is undefined: one class has no AUC."""
    return "–" if value is None or math.isnan(value) else f"{value:.3f}"


def interval(value: float | None, low: float | None, high: float | None) -> str:
    """A figure with its interval, as far as they are defined."""
    if "–" in (figure(low), figure(high)):
        return figure(value)
    return f"{figure(value)} [{figure(low)}, {figure(high)}]"
