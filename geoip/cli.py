"""`geoip lookup`: where an address is, by hand, from the table the pipeline would ask."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from geoip.database import Database, DatabaseError, open_database
from geoip.place import Place

FAILED, WRONG_USE = 1, 2

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None)


def main() -> None:
    """The console script."""
    app(prog_name="geoip")


@app.callback()
def geoip() -> None:
    """Where an address is."""


@app.command()
def lookup(
    addresses: Annotated[list[str], typer.Argument(metavar="IP...", help="IPv4 or IPv6 addresses.")],
    db: Annotated[
        Path | None,
        typer.Option(
            "--db", envvar="GEOIP_DB", help="A MaxMind-format file.  [default: the shipped country table]"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Country, region and city of each address, and which table says so."""
    for address in addresses:
        if not _is_address(address):
            _stop(f"{address!r} is not an IP address.", WRONG_USE)
    try:
        database = open_database(db)
    except DatabaseError as error:
        _stop(str(error), FAILED)
    places = [(address, database.place_of(address)) for address in addresses]
    if as_json:
        for address, place in places:
            typer.echo(json.dumps(_as_json(address, place, database), ensure_ascii=False))
    else:
        _print(places, database)


def _as_json(address: str, place: Place, database: Database) -> dict[str, object]:
    about = {"path": str(database.path), "type": database.database_type, "built": f"{database.built:%FT%TZ}"}
    return {"address": address, **asdict(place), "database": about}


def _print(places: list[tuple[str, Place]], database: Database) -> None:
    table = Table("address", "country", "region", "city", box=None, pad_edge=False, header_style="bold")
    for address, place in places:
        table.add_row(address, *(part or "–" for part in (place.country, place.region, place.city)))
    days = (datetime.now(UTC) - database.built).days
    console = Console(highlight=False)
    console.print(table)
    console.print(f"\n{database}, {days} days old", style="dim", markup=False, soft_wrap=True)
    if database.credit:
        console.print(database.credit, style="dim", markup=False, soft_wrap=True)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _stop(sentence: str, code: int) -> NoReturn:
    typer.echo(sentence, err=True)
    raise typer.Exit(code)
