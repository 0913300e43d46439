"""`geoip lookup`: where an address is, by hand, from the table the pipeline would ask; `geoip update`: a new one."""

import json
from datetime import UTC, datetime
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from msgspec.structs import asdict
from rich.console import Console
from rich.table import Table

from geoip.database import Database, DatabaseError, open_database
from geoip.place import Place
from geoip.progress import shown
from geoip.settings import GeoipSettings
from geoip.source import Source, UpdateError, source_of
from geoip.update import update
from process.run import FAILED, WRONG_USE, run, settings_or_exit
from process.settings import SettingsError

app = typer.Typer(
    add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False
)


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


@app.command("update")
def update_command(
    *,
    edition: Annotated[str, typer.Option(help="One of MaxMind's editions.")] = "GeoLite2-City",
    db: Annotated[
        Path | None, typer.Option("--db", help="Where the table goes.  [default: GEOIP_DB]")
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(help="The .tar.gz at a mirror, {edition} in it.  [default: MAXMIND_URL, else MaxMind]"),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Fetch the release that is there already too.")
    ] = False,
) -> None:
    """Fetch MaxMind's latest table with your licence key, and put it in the place of the old one."""
    settings = settings_or_exit(GeoipSettings)
    path = db or settings.geoip_db
    if path is None:
        _stop("GEOIP_DB is not set: set it to the file that the table shall be.", WRONG_USE)
    try:
        source = source_of(settings, edition, url)
    except SettingsError as error:
        _stop(str(error), WRONG_USE)
    run(partial(_update, source, path, force=force))


async def _update(source: Source, path: Path, *, force: bool) -> int:
    try:
        with shown(source.edition) as on_progress:
            done = await update(source, path, force=force, on_progress=on_progress)
    except UpdateError as error:
        typer.echo(str(error), err=True)
        return FAILED
    news = "is in place" if done.replaced else "is the latest release already"
    typer.echo(f"{done.table} {news}.")
    return 0


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
