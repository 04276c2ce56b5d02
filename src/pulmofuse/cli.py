"""The command line: parses, calls, prints.

Heavy imports stand inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from pulmofuse import __version__
from pulmofuse.errors import PulmofuseError, SourceError

if TYPE_CHECKING:
    import pandas as pd
    from rich.progress import Progress
    from rich.text import Text

#: Exit code of an error that the user can act on (also typer's code for wrong usage).
EXIT_USER_ERROR = 2
EXIT_BROKEN_PIPE = 1
EXIT_INTERRUPTED = 130

_SHOWN = {"accuracy": "acc.", "recall": "sens.", "specificity": "spec.", "f1": "F1"}

app = typer.Typer(
    help="Respiratory disease from chest CT, chest X-ray and cough. Research use only.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Look at data sets and manifests.", no_args_is_help=True)
app.add_typer(data_app, name="data")

DataRoot = Annotated[
    Path,
    typer.Option(help="Folder below which the data lie.", envvar="PULMOFUSE_DATA", metavar="DIR"),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Change one setting, e.g. ct.training.epochs=5.", metavar="KEY=VALUE"
    ),
]


def main() -> None:
    """Entry point: an error that the user can act on becomes one line and exit code 2."""
    try:
        app()
    except PulmofuseError as error:
        _fail(error)
    except BrokenPipeError:
        # The reader (`| head`) has left, and nobody needs to hear of it.
        sys.exit(EXIT_BROKEN_PIPE)
    except OSError as error:
        remedy = "check the path, its permissions and the free space on its disk"
        what = error.filename or "file system"
        _fail(PulmofuseError(os.fsdecode(what), error.strerror or repr(error), remedy))
    except SystemExit as stop:
        # Typer turns Ctrl+C into this exit code, and says nothing.
        if stop.code == EXIT_INTERRUPTED:
            typer.echo("stopped; the same command goes on from here", err=True)
        raise


def _fail(error: PulmofuseError) -> NoReturn:
    typer.secho(f"error: {error}", fg="red", err=True)
    sys.exit(EXIT_USER_ERROR)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"pulmofuse {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Respiratory disease from chest CT, chest X-ray and cough. Research use only."""
    del version


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Output folder.", metavar="DIR")] = Path("runs/demo"),
    overrides: Overrides = None,
) -> None:
    """Run a whole study on a synthetic cohort; needs no data."""
    from importlib.resources import files

    from pulmofuse.config import parse_config
    from pulmofuse.sources.synthetic import demo_cohort, generate
    from pulmofuse.study import run_study

    text = files("pulmofuse").joinpath("demo.yaml").read_text(encoding="utf-8")
    config = parse_config(text, overrides or (), "demo.yaml")
    cohort = out / "cohort"
    with _Display() as display:
        display.step("Generate the synthetic cohort")
        generate(cohort, demo_cohort(config.seed), display.update)
        display.finish(str(cohort))
        report = run_study(config, cohort, out, display)
    _closing(out, report)


@app.command()
def study(
    config: Annotated[Path, typer.Argument(help="Study configuration (YAML).")],
    data_root: DataRoot = Path("data"),
    out: Annotated[Path, typer.Option(help="Output folder.", metavar="DIR")] = Path("runs/study"),
    overrides: Overrides = None,
) -> None:
    """Train, fuse, evaluate and report; a stopped study goes on where it was."""
    from pulmofuse.config import load_config
    from pulmofuse.study import run_study

    tree = load_config(config, overrides or ())
    with _Display() as display:
        report = run_study(tree, data_root, out, display)
    _closing(out, report)


@app.command()
def evaluate(
    study_dir: Annotated[Path, typer.Argument(help="Output folder of a study.")],
    data: Annotated[str, typer.Argument(help="A manifest, or SOURCE:ROOT.")],
    data_root: DataRoot = Path("data"),
    out: Annotated[Path | None, typer.Option(help="Output folder.", metavar="DIR")] = None,
) -> None:
    """Evaluate a study's models on data they never saw."""
    from pulmofuse.external import evaluate_external

    name = "".join(c if c.isalnum() else "-" for c in Path(data).stem or data).strip("-")
    folder = out or study_dir / "external" / name
    with _Display() as display:
        table = evaluate_external(study_dir, data, data_root, folder, display)
    _print_comparison(table)
    typer.echo(str(folder / "comparison.csv"))


@app.command()
def predict(
    bundle: Annotated[Path, typer.Argument(help="bundle/ folder of a study.")],
    ct: Annotated[Path | None, typer.Option(help="CT slice or volume.", metavar="FILE")] = None,
    cxr: Annotated[Path | None, typer.Option(help="Frontal chest X-ray.", metavar="FILE")] = None,
    cough: Annotated[Path | None, typer.Option(help="Cough recording.", metavar="FILE")] = None,
    method: Annotated[str, typer.Option(help="How several files are joined.")] = "log_odds",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Predict from one file of each modality at hand."""
    from pulmofuse.inference import Predictor

    result = Predictor.load(bundle).predict(ct=ct, cxr=cxr, cough=cough, method=method)
    if as_json:
        typer.echo(json.dumps(result.to_dict(), indent=2))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(f"{result.predicted}  ({result.subset}, {result.method})"))
    table.add_column("class")
    for name in result.by_modality:
        table.add_column(name, justify="right")
    table.add_column("together", justify="right", style="bold")
    for name, p in result.probabilities.items():
        singles = [f"{values[name]:.3f}" for values in result.by_modality.values()]
        table.add_row(Text(name), *singles, f"{p:.3f}")
    console = Console()
    console.print(table)
    for warning in result.warnings:
        console.print(Text.assemble(("note:", "yellow"), f" {warning}"))
    console.print("[bold]Research use only, not a medical device.[/bold]")


@data_app.command("list")
def data_list() -> None:
    """Show the data sets that Pulmofuse can read."""
    from rich.console import Console
    from rich.table import Table

    from pulmofuse.sources import SOURCES

    table = Table()
    for column in ("name", "modalities", "labels", "patients known", "licence", "size"):
        # The name is what a person types next: it is never cut.
        table.add_column(column, overflow="fold", no_wrap=column == "name")
    for source in SOURCES.values():
        known = {True: "yes", False: "no", None: "in part"}[source.patients_known]
        modalities, labels = ", ".join(source.modalities), ", ".join(source.labels)
        row = _cells(source.name, modalities, labels, known, source.licence, source.size)
        table.add_row(*row)
    Console().print(table)


@data_app.command("scan")
def data_scan(
    data: Annotated[str, typer.Argument(help="SOURCE:ROOT, e.g. folder:my-hospital.")],
    data_root: DataRoot = Path("data"),
    out: Annotated[
        Path | None, typer.Option(help="Write the manifest here.", metavar="FILE")
    ] = None,
) -> None:
    """List the files of a data set, and what is missing."""
    from rich.console import Console

    from pulmofuse.schema import exclusions_frame, write_manifest
    from pulmofuse.sources import SOURCES, scan_source

    name, colon, root = data.partition(":")
    if not name or not colon:
        remedy = f"write SOURCE:ROOT, e.g. folder:my-hospital; known sources: {', '.join(SOURCES)}"
        raise SourceError(data, "names no source and its folder", remedy)
    scan = scan_source(name, data_root, root or ".")
    counts = scan.records.groupby(["modality", "label"]).agg(
        files=("record_id", "size"), patients=("patient_id", "nunique")
    )
    console = Console()
    _print_table(console, counts.reset_index(), f"{len(scan.records):,} files in {data}")
    _print_exclusions(console, exclusions_frame(scan.excluded))
    if out is not None:
        write_manifest(out, scan.records)
        typer.echo(str(out))


@data_app.command("check")
def data_check(
    manifest: Annotated[Path, typer.Argument(help="A manifest (Parquet or CSV).")],
    data_root: DataRoot = Path("data"),
    out: Annotated[
        Path | None, typer.Option(help="Write the list here (CSV).", metavar="FILE")
    ] = None,
) -> None:
    """Read every file of a manifest and list those that cannot be used."""
    from rich.console import Console

    from pulmofuse.files import atomic_path
    from pulmofuse.pipeline import check_files
    from pulmofuse.schema import read_manifest

    frame = read_manifest(manifest)
    if not data_root.is_dir():
        raise SourceError(
            data_root, "no such folder", "name the folder of the data: --data-root DIR"
        )
    with _Display() as display:
        display.step("Read the files")
        faults = check_files(frame, data_root, display.update)
        display.finish(f"{len(frame) - len(faults):,} of {len(frame):,} files can be used")
    _print_exclusions(Console(), faults)
    if out is not None:
        with atomic_path(out) as temporary:
            faults.to_csv(temporary, index=False)
        typer.echo(str(out))


class _Display:
    """Progress for a person: a bar on a terminal, a line per step elsewhere."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)
        self._progress: Progress | None = None
        self._title = ""

    def __enter__(self) -> _Display:
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


def _closing(out: Path, report: Path) -> None:
    """The comparison, and where the report is."""
    import pandas as pd

    _print_comparison(pd.read_csv(out / "comparison.csv"))
    typer.echo("Research use only, not a medical device.")
    typer.echo(f"Report: {report}")


def _print_comparison(table: pd.DataFrame) -> None:
    from rich.console import Console

    shown = table[["subset", "method"]].copy()
    shown["AUC [95 %]"] = [
        _interval(*row) for row in table[["roc_auc", "roc_auc_low", "roc_auc_high"]].to_numpy()
    ]
    for name, title in _SHOWN.items():
        shown[title] = [_figure(value) for value in table[name]]
    simulated = bool(table["simulated"].any())
    shown["n"] = [
        f"{n}*" if s else str(n)
        for n, s in zip(table["n_patients"], table["simulated"], strict=True)
    ]
    _print_table(Console(), shown, "Test patients")
    if simulated:
        typer.echo("* simulated patients: records of one class joined, not the same person")


def _figure(value: float | None) -> str:
    """A figure, or a dash where it is undefined: one class has no AUC."""
    return "–" if value is None or math.isnan(value) else f"{value:.3f}"


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    """A figure with its interval, as far as they are defined."""
    if "–" in (_figure(low), _figure(high)):
        return _figure(value)
    return f"{_figure(value)} [{_figure(low)}, {_figure(high)}]"


def _cells(*values: object) -> list[Text]:
    """Cells as they stand: rich would take a path such as "[covid] 1.png" for markup."""
    from rich.text import Text

    return [Text(str(value)) for value in values]


def _print_table(console: object, frame: pd.DataFrame, title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    # No frame: a comparison must fit the 80 columns of a log.
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    (table.title,), table.title_justify = _cells(title), "left"
    for column in _cells(*frame.columns):
        table.add_column(column, overflow="fold")
    for row in frame.itertuples(index=False):
        table.add_row(*_cells(*row))
    assert isinstance(console, Console)  # noqa: S101  # rich is imported inside functions only
    console.print(table)


def _print_exclusions(console: object, exclusions: pd.DataFrame) -> None:
    if exclusions.empty:
        return
    _print_table(
        console,
        exclusions[["path", "reason", "remedy"]].head(20),
        f"{len(exclusions):,} files left out",
    )
    if len(exclusions) > 20:
        typer.echo(f"… and {len(exclusions) - 20:,} more (write them all with --out)")


if __name__ == "__main__":
    main()
