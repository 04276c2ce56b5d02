"""The command line: parses, calls, prints.

Heavy imports stand inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from pulmofuse import __version__
from pulmofuse.cli_data import DataRoot, GateOption, Prevalence, audit, data_app, gate_mode
from pulmofuse.cli_models import Overrides, export, power, predict_batch, pretrain
from pulmofuse.cli_service import keys_app, serve
from pulmofuse.console import Display, figure, print_comparison, print_crossval, print_table
from pulmofuse.errors import PulmofuseError

if TYPE_CHECKING:
    from pulmofuse.config import StudyConfig
    from pulmofuse.inference import Prediction

#: Exit code of an error that the user can act on (also typer's code for wrong usage).
EXIT_USER_ERROR = 2
EXIT_BROKEN_PIPE = 1
EXIT_INTERRUPTED = 130

app = typer.Typer(
    help="Respiratory disease from chest CT, chest X-ray and cough. Research use only.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(data_app, name="data")
app.command()(audit)
app.command()(pretrain)
app.command()(serve)
app.add_typer(keys_app, name="keys")
app.command()(power)
app.command()(export)
app.command()(predict_batch)

DropLeaks = Annotated[
    bool,
    typer.Option("--drop-leaks", help="Take records that test knows out of training."),
]
AcceptLeaks = Annotated[
    bool,
    typer.Option("--accept-leaks", help="Go on with leaks; every page of the report says so."),
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
    with Display() as display:
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
    drop_leaks: DropLeaks = False,
    accept_leaks: AcceptLeaks = False,
) -> None:
    """Train, fuse, evaluate and report; a stopped study goes on where it was."""
    from pulmofuse.study import run_study

    tree = _load(config, overrides, drop_leaks, accept_leaks)
    with Display() as display:
        report = run_study(tree, data_root, out, display)
    _closing(out, report)


@app.command()
def leave_one_out(
    config: Annotated[Path, typer.Argument(help="Study configuration (YAML).")],
    data_root: DataRoot = Path("data"),
    out: Annotated[Path, typer.Option(help="Output folder.", metavar="DIR")] = Path("runs/loso"),
    by: Annotated[str, typer.Option(help="What is left out: source or site.")] = "source",
    overrides: Overrides = None,
    drop_leaks: DropLeaks = False,
    accept_leaks: AcceptLeaks = False,
) -> None:
    """Run a study once for each source (or site), tested on that one and trained on the others."""
    from pulmofuse.loso import leave_one_source_out

    names: dict[str, Literal["source", "site"]] = {"source": "source", "site": "site"}
    if by not in names:
        raise typer.BadParameter("give source or site", param_hint="--by")
    tree = _load(config, overrides, drop_leaks, accept_leaks)
    with Display() as display:
        table = leave_one_source_out(tree, data_root, out, names[by], display)
    numbers = table.select_dtypes("float").columns
    table[numbers] = table[numbers].map(figure)
    print_table(table.fillna("–"), f"Left out, one {by} at a time")
    typer.echo(str(out / "loso.csv"))


@app.command()
def cross_validate(
    config: Annotated[Path, typer.Argument(help="Study configuration (YAML).")],
    data_root: DataRoot = Path("data"),
    out: Annotated[Path, typer.Option(help="Output folder.", metavar="DIR")] = Path("runs/cv"),
    folds: Annotated[int, typer.Option(min=2, help="Number of folds.")] = 5,
    seeds: Annotated[str, typer.Option(help="Whole numbers, a comma between.")] = "17,18,19",
    by: Annotated[str, typer.Option(help="What is dealt: patient, image or both.")] = "both",
    pairs: Annotated[
        list[str] | None,
        typer.Option("--pair", metavar="A,B", help="Compare two of three or more classes."),
    ] = None,
    published: Annotated[
        list[str] | None,
        typer.Option(metavar="FIGURE=VALUE", help="Published figure, shown beside ours."),
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Cross-validate each modality alone, with folds by patient and, as published, by image."""
    from pulmofuse import crossval
    from pulmofuse.report.crossval import leak_lines

    protocols = {name: (name,) for name in crossval.PROTOCOLS} | {"both": crossval.PROTOCOLS}
    if by not in protocols:
        raise typer.BadParameter("give patient, image or both", param_hint="--by")
    try:
        numbers = [int(seed) for seed in seeds.split(",")]
    except ValueError:
        raise typer.BadParameter(
            "give whole numbers as in 17,18,19", param_hint="--seeds"
        ) from None
    tree = _load(config, overrides, False, False)
    with Display() as display:
        found = crossval.cross_validate(
            tree, data_root, out, folds=folds, seeds=numbers, protocols=protocols[by],
            pairs=pairs or (), published=published or (), reporter=display,
        )  # fmt: skip
    print_crossval(found.table)
    for line in leak_lines(found.leaks):
        typer.echo(line)
    typer.echo("Research use only, not a medical device.")
    typer.echo(str(out / "crossval.md"))


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
    with Display() as display:
        table = evaluate_external(study_dir, data, data_root, folder, display)
    print_comparison(table)
    typer.echo(str(folder / "comparison.csv"))
    if (folder / "pairs.csv").is_file():
        typer.echo(f"Patients with several modalities, one by one: {folder / 'pairs.csv'}")


@app.command()
def predict(
    bundle: Annotated[Path, typer.Argument(help="bundle/ folder of a study.")],
    ct: Annotated[Path | None, typer.Option(help="CT slice or volume.", metavar="FILE")] = None,
    cxr: Annotated[Path | None, typer.Option(help="Frontal chest X-ray.", metavar="FILE")] = None,
    cough: Annotated[Path | None, typer.Option(help="Cough recording.", metavar="FILE")] = None,
    method: Annotated[str, typer.Option(help="How several files are joined.")] = "log_odds",
    prevalence: Prevalence = None,
    gate: GateOption = "refuse",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Predict from one file of each modality at hand."""
    from pulmofuse.inference import Predictor

    mode = gate_mode(gate)
    # One file is read sooner by torch than a network is made ready for anything else.
    result = Predictor.load(bundle, runtime="torch").predict(
        ct=ct, cxr=cxr, cough=cough, method=method, prevalence=prevalence, gate=mode
    )
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
    for line in _about(result):
        console.print(Text(line))
    for remark in result.quality:
        line = f" {remark['modality']} {remark['text']}. {remark['remedy']}."
        console.print(Text.assemble(("quality:", "yellow"), line))
    for warning in result.warnings:
        console.print(Text.assemble(("note:", "yellow"), f" {warning}"))
    console.print("[bold]Research use only, not a medical device.[/bold]")


def _about(result: Prediction) -> Iterator[str]:
    """What to know of a prediction beside its probabilities."""
    if result.prevalence is not None:
        yield f"for a prevalence of {result.prevalence:.3g}"
    if result.prediction_set is not None and result.coverage is not None:
        named = ", ".join(result.prediction_set) or "none: unlike the usual patients of any class"
        yield f"prediction set at {result.coverage:.0%} coverage: {named}"


def _load(
    config: Path, overrides: list[str] | None, drop_leaks: bool, accept_leaks: bool
) -> StudyConfig:
    """The configuration, with what the flags say of leaks."""
    from pulmofuse.config import load_config

    if drop_leaks and accept_leaks:
        raise typer.BadParameter("--drop-leaks and --accept-leaks exclude each other")
    flags = {"drop": drop_leaks, "accept": accept_leaks}
    chosen = [f"audit.on_leak={name}" for name, given in flags.items() if given]
    return load_config(config, [*(overrides or ()), *chosen])


def _closing(out: Path, report: Path) -> None:
    """The comparison, and where the report is."""
    import pandas as pd

    print_comparison(pd.read_csv(out / "comparison.csv"))
    typer.echo("Research use only, not a medical device.")
    typer.echo(f"Report: {report}")


if __name__ == "__main__":
    main()
