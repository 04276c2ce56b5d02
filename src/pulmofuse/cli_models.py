"""The commands that make models outside a study: `pretrain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pulmofuse.cli_data import DataRoot
from pulmofuse.console import Display

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
