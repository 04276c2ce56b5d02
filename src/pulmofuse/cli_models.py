"""The commands beside a study: `pretrain` before it, `power`, `export`, `predict-batch` after."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pulmofuse.cli_data import DataRoot, GateOption, Prevalence, gate_mode
from pulmofuse.console import Display, print_exclusions, print_table

Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Change one setting, e.g. ct.training.epochs=5.", metavar="KEY=VALUE"
    ),
]


def pretrain(
    config: Annotated[Path, typer.Argument(help="Study configuration (YAML).")],
    modality: Annotated[str, typer.Option(help="Whose backbone: ct or cxr.")],
    data_root: DataRoot = Path("data"),
    out: Annotated[Path, typer.Option(help="Output folder.", metavar="DIR")] = Path(
        "runs/pretrain"
    ),
    overrides: Overrides = None,
) -> None:
    """Adapt a backbone to a study's training images without labels; a stopped run goes on."""
    from pulmofuse.config import load_config
    from pulmofuse.pretraining import pretrain_backbone
    from pulmofuse.schema import Modality

    if modality not in {"ct", "cxr"}:
        raise typer.BadParameter("give ct or cxr", param_hint="--modality")
    tree = load_config(config, overrides or ())
    with Display() as display:
        weights = pretrain_backbone(tree, Modality(modality), data_root, out, display)
    typer.echo(f"Start from it with --set {modality}.model.weights={weights}")


def power(
    study_dir: Annotated[Path, typer.Argument(help="Output folder of a study.")],
    frame: Annotated[
        Path | None,
        typer.Option(
            help="Label file of those one could recruit: a manifest, or combined_data.csv.",
            metavar="FILE",
        ),
    ] = None,
) -> None:
    """Say how many patients with every modality would show the gain that a study claims."""
    from pulmofuse.files import write_json
    from pulmofuse.pipeline import POWER_FILE, study_power

    statement = study_power(study_dir, frame)
    write_json(study_dir / POWER_FILE, statement)
    if statement["claimed"]:
        _print_needed(statement)
    for text in (statement["sentence"], *statement["caveats"]):
        typer.echo(text)
    typer.echo(str(study_dir / POWER_FILE))


def export(
    bundle: Annotated[Path, typer.Argument(help="bundle/ folder of a study.")],
    out: Annotated[Path, typer.Option(help="Output folder.", metavar="DIR")],
    kind: Annotated[str, typer.Option("--format", help="onnx or openvino.")] = "onnx",
) -> None:
    """Write a bundle's models as ONNX or OpenVINO files, one for each modality."""
    from pulmofuse import inference
    from pulmofuse.files import read_json

    formats: dict[str, Literal["onnx", "openvino"]] = {"onnx": "onnx", "openvino": "openvino"}
    if kind not in formats:
        raise typer.BadParameter("give onnx or openvino", param_hint="--format")
    for path in inference.export_bundle(inference.load_bundle(bundle), out, formats[kind]):
        measured = read_json(path)["largest_difference"].values()
        worst = max(values["probabilities"] for values in measured)
        typer.echo(f"{path}: probabilities differ by at most {worst:.1e}")


def predict_batch(
    bundle: Annotated[Path, typer.Argument(help="bundle/ folder of a study.")],
    data: Annotated[
        str, typer.Argument(help="Table of files (path, modality, patient_id), or SOURCE:ROOT.")
    ],
    data_root: DataRoot = Path("data"),
    out: Annotated[Path, typer.Option(help="Output folder.", metavar="DIR")] = Path("runs/batch"),
    method: Annotated[str, typer.Option(help="How several modalities are joined.")] = "log_odds",
    prevalence: Prevalence = None,
    gate: GateOption = "refuse",
) -> None:
    """Predict for every patient of a list; a stopped run goes on where it was."""
    import pandas as pd

    from pulmofuse import batch

    mode = gate_mode(gate)
    with Display() as display:
        table = batch.predict_batch(
            bundle, data, data_root, out,
            method=method, prevalence=prevalence, gate=mode, reporter=display,
        )  # fmt: skip
    called = table.groupby("predicted", sort=True).size().rename("patients").reset_index()
    print_table(called, f"{len(table):,} patients")
    print_exclusions(pd.read_csv(out / "excluded.csv"))
    typer.echo("Research use only, not a medical device.")
    typer.echo(str(out / "predictions.csv"))


def _print_needed(statement: dict[str, Any]) -> None:
    """Patients by prevalence, power and number of comparisons."""
    import pandas as pd

    rows = pd.DataFrame(statement["needed"])
    numbers = ["pairs", "pairs_at_low", "pairs_at_high"]
    shown = rows[["prevalence", "power"]].map("{:.1%}".format)
    shown["power"] = rows["power"].map("{:.0%}".format)
    shown["claims"] = rows["comparisons"]
    shown[["patients", "at the low end", "at the high end"]] = rows[numbers].map(
        lambda n: "–" if pd.isna(n) else f"{n:,.0f}"
    )
    print_table(shown, "Patients with every modality, for the gain and the ends of its interval")
