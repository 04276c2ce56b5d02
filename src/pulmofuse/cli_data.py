"""The commands that look at data: `data list`, `data scan`, `data check` and `audit`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pulmofuse.console import Display, cells, print_exclusions, print_table
from pulmofuse.errors import SourceError

if TYPE_CHECKING:
    import pandas as pd

    from pulmofuse.inference import GateMode

DataRoot = Annotated[
    Path,
    typer.Option(help="Folder below which the data lie.", envvar="PULMOFUSE_DATA", metavar="DIR"),
]
Manifest = Annotated[Path, typer.Argument(help="A manifest (Parquet or CSV).")]
Prevalence = Annotated[
    float | None,
    typer.Option(help="Share of the positive class where this is used, e.g. 0.02."),
]
GateOption = Annotated[
    str, typer.Option(help="Files the models were not made for: refuse, warn or off.")
]

#: Ways to get missing files that are shown; the list of exclusions has all of them.
_MOST_REMEDIES = 5

data_app = typer.Typer(help="Look at data sets and manifests.", no_args_is_help=True)


def gate_mode(name: str) -> GateMode:
    """The mode that a user typed.

    Raises:
        typer.BadParameter: there is no such mode.
    """
    from pulmofuse.inference import GATE_MODES

    modes = {mode: mode for mode in GATE_MODES}
    if name not in modes:
        raise typer.BadParameter("give refuse, warn or off", param_hint="--gate")
    return modes[name]


@data_app.command("list")
def data_list() -> None:
    """Show the data sets that Pulmofuse can read."""
    from rich.console import Console
    from rich.table import Table

    from pulmofuse.schema import Label
    from pulmofuse.sources import SOURCES

    # Read in a terminal and in a log of 80 columns alike.
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    longest = max(map(len, Label))
    for column in ("name", "what", "labels", "patients", "licence"):
        # The name is what a person types next, and labels are typed too: neither is cut.
        table.add_column(
            column,
            overflow="fold",
            no_wrap=column == "name",
            min_width=longest if column == "labels" else None,
        )
    for source in SOURCES.values():
        known = {True: "known", False: "not known", None: "in part"}[source.patients_known]
        what = f"{', '.join(source.modalities)}: {source.size}"
        labels = "any" if len(source.labels) == len(Label) else " ".join(source.labels)
        table.add_row(*cells(source.name, what, labels, known, source.licence))
    Console().print(table)


@data_app.command("scan")
def data_scan(
    data: Annotated[str, typer.Argument(help="SOURCE:ROOT, e.g. folder:my-hospital.")],
    data_root: DataRoot = Path("data"),
    out: Annotated[
        Path | None, typer.Option(help="Write the manifest here.", metavar="FILE")
    ] = None,
    list_only: Annotated[bool, typer.Option("--list-only", help="Do not open the files.")] = False,
) -> None:
    """List and read the files of a data set; say what is missing, broken or odd.

    Every file that is left out, with the reason and the remedy, goes to FILE.excluded.csv, and what
    is odd to FILE.odd.csv, beside the manifest that --out names.
    """
    import pandas as pd

    from pulmofuse.curation import read_files, remark_rows, seen_records, unreadable_files
    from pulmofuse.schema import check_manifest_path, exclusions_frame, write_manifest
    from pulmofuse.sources import SOURCES, scan_source

    name, colon, root = data.partition(":")
    if not name or not colon:
        remedy = f"write SOURCE:ROOT, e.g. folder:my-hospital; known sources: {', '.join(SOURCES)}"
        raise SourceError(data, "names no source and its folder", remedy)
    if out is not None:
        check_manifest_path(out)
    scan = scan_source(name, data_root, root or ".")
    records, excluded = scan.records, exclusions_frame(scan.excluded)
    odd = pd.DataFrame()
    if not list_only:
        with Display() as display:
            display.step("Read the files")
            files = read_files(records, data_root, _store(out), display.update)
            display.finish(f"{int(files['reason'].isna().sum()):,} of {len(files):,} can be read")
        excluded = pd.concat([excluded, unreadable_files(files, records)], ignore_index=True)
        records = seen_records(records, files)
        odd = remark_rows(records)
    _print_counts(records, f"{len(records):,} files in {data}")
    _print_odd(odd)
    print_exclusions(excluded)
    _print_missing(excluded, len(scan.records))
    if out is not None:
        write_manifest(out, records)
        _write_lists(out, excluded, odd)
    if scan.records.empty:
        n = len(_missing(excluded))
        why = (
            f"none of the {n:,} files that it should hold is there" if n else "holds no usable file"
        )
        raise SourceError(data, why, SOURCES[name].obtain)


@data_app.command("check")
def data_check(
    manifest: Manifest,
    data_root: DataRoot = Path("data"),
    out: Annotated[
        Path | None, typer.Option(help="Write the list here (CSV).", metavar="FILE")
    ] = None,
) -> None:
    """Read every file of a manifest; list those that cannot be used, and those that are odd."""
    from pulmofuse.curation import read_files, remark_rows, seen_records, unreadable_files
    from pulmofuse.files import write_csv
    from pulmofuse.schema import read_manifest

    frame = read_manifest(manifest)
    _require_folder(data_root)
    with Display() as display:
        display.step("Read the files")
        files = read_files(frame, data_root, None, display.update)
        faults = unreadable_files(files, frame)
        display.finish(f"{len(files) - len(faults):,} of {len(files):,} files can be read")
    _print_odd(remark_rows(seen_records(frame, files)))
    print_exclusions(faults)
    if out is not None:
        write_csv(out, faults)
        typer.echo(str(out))


def audit(
    manifest: Manifest,
    data_root: DataRoot = Path("data"),
    out: Annotated[Path, typer.Option(help="Output folder.", metavar="DIR")] = Path("runs/audit"),
    config: Annotated[
        Path | None, typer.Option(help="Take classes and seed from this study (YAML).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print audit.json.")] = False,
) -> None:
    """Look for leaks, copies, contradicting labels and shortcuts in a manifest."""
    from pulmofuse.auditing import audit_manifest
    from pulmofuse.config import load_config

    _require_folder(data_root)
    tree = load_config(config) if config is not None else None
    with Display() as display:
        found = audit_manifest(manifest, data_root, out, tree, display)
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
        return
    import pandas as pd

    rows = [(c.verdict, c.id, c.modality, c.detail) for c in found.checks]
    print_table(pd.DataFrame(rows, columns=["", "check", "data", "what was found"]), "Audit")
    typer.echo(f"verdict: {found.verdict}")
    typer.echo(f"Page: {out / 'audit.html'}")


def _require_folder(data_root: Path) -> None:
    if not data_root.is_dir():
        remedy = "name the folder of the data: --data-root DIR"
        raise SourceError(data_root, "no such folder", remedy)


def _store(out: Path | None) -> Path | None:
    """Where what was seen of the files is kept, beside the manifest, for the next run."""
    return out.with_suffix(".files") if out is not None else None


def _print_counts(records: pd.DataFrame, title: str) -> None:
    counts = records.groupby(["modality", "label"]).agg(
        files=("record_id", "size"), patients=("patient_id", "nunique")
    )
    print_table(counts.reset_index(), title)


def _print_odd(odd: pd.DataFrame) -> None:
    """What is odd about the files, by kind: a study leaves most of these out and says so."""
    if odd.empty:
        return
    counts = odd.groupby(["modality", "kind"]).agg(files=("path", "nunique"), first=("path", "min"))
    print_table(counts.reset_index().rename(columns={"first": "such as"}), "Odd files")


def _missing(excluded: pd.DataFrame) -> pd.DataFrame:
    """The exclusions of files that a list names and nobody finds."""
    from pulmofuse.sources.base import MISSING

    return excluded[excluded["reason"].str.endswith(MISSING)]


def _print_missing(excluded: pd.DataFrame, n_there: int) -> None:
    """How many files are missing, and how to get them; the list of exclusions names them."""
    from pulmofuse.curation.check import counted

    gone = _missing(excluded)
    if gone.empty or not n_there:
        return
    remedies = gone["remedy"].value_counts()
    typer.echo(f"{len(gone):,} of {n_there + len(gone):,} files are missing; to get them:")
    for remedy, n in remedies.head(_MOST_REMEDIES).items():
        typer.echo(f"  {remedy} ({counted(n, 'file')})")
    if len(remedies) > _MOST_REMEDIES:
        typer.echo(f"  and {len(remedies) - _MOST_REMEDIES:,} more ways (all of them with --out)")


def _write_lists(out: Path, excluded: pd.DataFrame, odd: pd.DataFrame) -> None:
    """Write the lists beside the manifest and say where everything is."""
    from pulmofuse.files import write_csv

    typer.echo(str(out))
    for table, name in ((excluded, "excluded"), (odd, "odd")):
        path = out.with_name(f"{out.stem}.{name}.csv")
        if table.empty:
            # A list of an earlier scan would speak of files that are mended.
            path.unlink(missing_ok=True)
            continue
        write_csv(path, table)
        typer.echo(str(path))
