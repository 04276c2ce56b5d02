"""The commands of the service: `serve` and `keys`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pulmofuse.cli_data import GateOption, gate_mode

if TYPE_CHECKING:
    from pulmofuse.service import Trail

keys_app = typer.Typer(
    help="Make, list and revoke the API keys of a service.", no_args_is_help=True
)

Database = Annotated[
    str,
    typer.Option(
        help="Audit trail: a path (SQLite), or postgresql://USER@HOST/NAME.",
        envvar="PULMOFUSE_DATABASE",
        metavar="PATH|URL",
        show_envvar=True,
    ),
]
_DATABASE = "runs/service/trail.sqlite"


def serve(
    bundle: Annotated[Path, typer.Argument(help="bundle/ folder of a study.")],
    host: Annotated[str, typer.Option(help="Address; others than this machine's own need it.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=1, max=65_535)] = 8000,
    database: Database = _DATABASE,
    rate_per_minute: Annotated[
        float | None, typer.Option(min=0.1, help="Requests of one key a minute.")
    ] = None,
    burst: Annotated[int | None, typer.Option(min=1, help="Requests of one key at once.")] = None,
    max_in_flight: Annotated[
        int | None,
        typer.Option(min=1, help="Predictions in work and waiting; more get 503."),
    ] = None,
    gate: GateOption = "refuse",
) -> None:
    """Serve predictions of a bundle over HTTP, with keys and an audit trail."""
    # Before PyTorch is loaded: its threads would go on spinning after each operation, and take the
    # processor from those that run the network (2.7 instead of 4.9 ms for an image on two cores).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from pulmofuse.service import ServiceSettings, explain_answer
    from pulmofuse.service import serve as run

    limits = {"rate_per_minute": rate_per_minute, "burst": burst, "max_in_flight": max_in_flight}
    given = {name: value for name, value in limits.items() if value is not None}
    settings = ServiceSettings.model_validate({**given, "gate": gate_mode(gate)})
    run(bundle, database, host, port, settings, partial(typer.echo, err=True), explain_answer)


@keys_app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    database: Database = _DATABASE,
    create: Annotated[
        bool, typer.Option("--create", help="Make the database if there is none.")
    ] = False,
) -> None:
    """Make a key and print it; it cannot be shown again."""
    with _trail(database, create) as trail:
        typer.echo(trail.add_key(name))


@keys_app.command("list")
def list_keys(database: Database = _DATABASE) -> None:
    """List all keys that were ever made, without their secrets."""
    import pandas as pd

    from pulmofuse.console import print_table

    with _trail(database) as trail:
        keys = trail.list_keys()
    rows = [
        {
            "id": key.key_id,
            "name": key.name,
            "created": f"{key.created:%Y-%m-%d %H:%M}",
            "revoked": f"{key.revoked:%Y-%m-%d %H:%M}" if key.revoked else "",
        }
        for key in keys
    ]
    print_table(pd.DataFrame(rows, columns=["id", "name", "created", "revoked"]), "API keys")


@keys_app.command("revoke")
def revoke(
    which: Annotated[str, typer.Argument(help="Name or id of a key.")],
    database: Database = _DATABASE,
) -> None:
    """Make a key invalid from now on; its predictions stay in the audit trail."""
    with _trail(database) as trail:
        key = trail.revoke_key(which)
    typer.echo(f"revoked {key.name} ({key.key_id})")


@contextmanager
def _trail(database: str, create: bool = False) -> Iterator[Trail]:
    """The trail of a database, which is named on standard error.

    Raises:
        ServiceError: there is no such file, and it shall not be made; or the database fails.
    """
    from sqlalchemy.exc import SQLAlchemyError

    from pulmofuse.errors import ServiceError
    from pulmofuse.service.database import database_url, open_database
    from pulmofuse.service.trail import Trail

    url = database_url(database)
    shown = url.render_as_string(hide_password=True)
    if url.get_backend_name() == "sqlite" and url.database and not create:
        shown = url.database
        if not Path(shown).exists():
            raise ServiceError(
                shown, "there is no such database",
                "give the --database of the service, or make a new one by keys add --create",
            )  # fmt: skip
    trail = Trail(open_database(database))
    typer.echo(f"database: {shown}", err=True)
    try:
        yield trail
    except SQLAlchemyError as error:
        cause = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise ServiceError(shown, f"cannot be used ({cause})", "try again") from None
    finally:
        trail.close()
