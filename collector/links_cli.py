"""`collector links …`: campaign links from the shell.

Each command does one thing with the links of DATABASE_URL. What the visitor sees of it a second later is the
business of `links.directory`; nothing here records a click.
"""

import asyncio
import json
import re
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from collector.link_options import edited, record_from, with_field_options
from collector.settings import CollectorSettings
from links.link import InvalidLinkError, Link, draft_of, record_of, state_of
from links.link_files import UnreadableFileError, csv_lines, json_line, read_links
from links.sifting import Import, sifted
from links.store import LinkStore, LinkStoreError
from process.run import FAILED, WRONG_USE, give_up, settings_or_exit
from process.terminal import progress, show_rows

Answer = TypeVar("Answer")

_QR_SCALE = 10
"""Pixels, or SVG units, a module: 300 to 500 across, enough for a poster as SVG and for a screen as PNG."""

links_app = typer.Typer(no_args_is_help=True, help="Campaign links from the shell.")

LinkName = Annotated[str, typer.Argument(metavar="ID|SLUG", help="A link's number or its slug.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON, for programs.")]


@links_app.command("list")
def list_links(
    search: Annotated[
        str,
        typer.Argument(help="Only links with this in slug, campaign, network or a tag.", metavar="[TEXT]"),
    ] = "",
    *,
    as_json: AsJson = False,
) -> None:
    """List the links: a table, or one record a line with --json."""
    links = [link for link in _all_links() if search.lower() in _findable(link)]
    if as_json:
        for link in links:
            typer.echo(json.dumps(record_of(link), ensure_ascii=False))
        return
    rows = (
        (str(link.id), link.slug, _state(link), link.campaign, link.network, _targets(link)) for link in links
    )
    _show(("id", "slug", "state", "campaign", "network", "targets"), rows)


@links_app.command("show")
def show_link(name: LinkName, *, as_json: AsJson = False) -> None:
    """Show a link, whether it works, and where its visitors go now. Records nothing."""
    settings = settings_or_exit(CollectorSettings)
    link = _with_store(lambda store: _found(store, name))
    state = _state(link)
    instead = settings.not_found_url if state == "live" else settings.error_page_url
    goes = {
        device: (link.target(platform) if state == "live" else None) or instead
        for device, platform in _devices(link).items()
    }
    if as_json:
        typer.echo(json.dumps({"link": record_of(link), "state": state, "goes": goes}, ensure_ascii=False))
        return
    fields = {name: value for name, value in record_of(link).items() if value not in (None, [], {})}
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}
    _show(("field", "value"), [("state", state), *texts.items()])
    _show(("visitor", "goes to"), [(who, target or "404") for who, target in goes.items()])


@links_app.command("add")
@with_field_options
def add_link(
    *,
    link_id: Annotated[int | None, typer.Option("--id", help="Its number; else the next free one.")] = None,
    **fields: Any,
) -> None:
    """Add a link."""
    with _wrong_use():
        draft = draft_of({**record_from(fields), "id": link_id})
    link = _with_store(lambda store: store.save([draft], replace=False))[0]
    typer.echo(f"link {link.id} added: {', '.join(_paths(link))}")
    if not link.target_url:
        typer.echo("It leads nowhere yet: give it a --target.", err=True)


@links_app.command("edit")
@with_field_options
def edit_link(
    name: LinkName,
    *,
    clear: Annotated[
        list[str] | None,
        typer.Option("--clear", metavar="FIELD", help="Empty a field, or target_url.ios. Repeat it."),
    ] = None,
    **fields: Any,
) -> None:
    """Change what is given and keep the rest; --target changes one platform's."""
    with _wrong_use():
        changes = record_from(fields)
    if not changes and not clear:
        give_up("Say what to change, as --campaign TEXT or --clear FIELD: see --help.", WRONG_USE)

    async def edit(store: LinkStore) -> Link:
        found = await _found(store, name)
        with _wrong_use():
            edited(found, changes, clear or [])
        return await store.change(found.id, lambda old: edited(old or found, changes, clear or []))

    typer.echo(f"link {_with_store(edit).id} changed")


@links_app.command("rm")
def remove_links(names: Annotated[list[str], typer.Argument(metavar="ID|SLUG…")]) -> None:
    """Remove links: all of them, or none if one is not there."""

    async def remove(store: LinkStore) -> list[Link]:
        links = [await _found(store, name) for name in names]
        await store.delete(link.id for link in links)
        return links

    for link in _with_store(remove):
        typer.echo(f"link {link.id} removed")


@links_app.command("import")
def import_links(
    file: Annotated[str, typer.Argument(help="CSV, JSON Lines or JSON; - is stdin.")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    skip_wrong: Annotated[bool, typer.Option("--skip-wrong", help="Import the good rows of a file.")] = False,
) -> None:
    """Insert or replace links by id, else by slug: all of them, or none if one is wrong."""
    with progress() as bar:
        try:
            rows = list(bar.track(read_links(_content(file), file), description="reading"))
        except UnreadableFileError as error:
            give_up(str(error), FAILED)
        saving = bar.add_task("saving", total=len(rows))

        async def take(store: LinkStore) -> Import:
            taken = await sifted(rows, store)
            if taken.links and not dry_run and (skip_wrong or not taken.wrong):
                await store.save(taken.links, on_progress=lambda saved: bar.advance(saving, saved))
            return taken

        done = _with_store(take)
    for row in done.wrong:
        typer.echo(f"{file}:{row.number}: {row.link}", err=True)
    if done.wrong and not skip_wrong:
        nothing = "nothing was imported: mend them, or import the others with --skip-wrong."
        give_up(f"{len(done.wrong)} of {len(rows)} links are wrong; {nothing}", FAILED)
    skipped = f", {len(done.wrong)} wrong ones skipped" if done.wrong else ""
    counts = f"({done.new} new, {len(done.links) - done.new} replaced{skipped})"
    typer.echo(f"{len(done.links)} links {'would be imported' if dry_run else 'imported'} {counts}")


@links_app.command("export")
def export_links(
    *, as_csv: Annotated[bool, typer.Option("--csv", help="CSV, for spreadsheets.")] = False
) -> None:
    """Write all links as JSON Lines, or as CSV: `import` reads either back."""
    links = _all_links()
    for line in csv_lines(links) if as_csv else (f"{json_line(link)}\n" for link in links):
        sys.stdout.buffer.write(line.encode())


@links_app.command("qr")
def qr_code(
    name: LinkName,
    *,
    base: Annotated[
        str, typer.Option("--base", metavar="URL", help="Where the links are, as https://go.example.")
    ],
    svg: Annotated[Path | None, typer.Option("--svg", metavar="FILE", help="Write it as SVG.")] = None,
    png: Annotated[Path | None, typer.Option("--png", metavar="FILE", help="Write it as PNG.")] = None,
) -> None:
    """Draw a link's QR code, here or into a file; its clicks say that they came from it."""
    import segno  # noqa: PLC0415 (0.6 MB that no `collector serve` should pay)

    if not re.fullmatch(r"https?://[^/?#\s]+(/[^?#\s]*)?", base):
        give_up(f"--base: `{base}` is no http:// or https:// URL, as https://go.example.", WRONG_USE)
    link = _with_store(lambda store: _found(store, name))
    url = f"{base.rstrip('/')}{_paths(link)[0]}?qr=1"
    code = segno.make(url, error="m", micro=False)
    try:
        if svg:
            code.save(str(svg), kind="svg", scale=_QR_SCALE)
        if png:
            code.save(str(png), kind="png", scale=_QR_SCALE)
    except OSError as error:
        give_up(f"The picture cannot be written ({error}): give another FILE.", FAILED)
    if not (svg or png):
        code.terminal(compact=True)
    typer.echo(url)


@links_app.command("migrate")
def migrate_tables() -> None:
    """Bring the tables of links to what this release needs: a release step; `serve` does it too."""

    async def versions(store: LinkStore) -> tuple[str | None, str | None]:
        before = await store.version()
        await store.prepare()
        return before, await store.version()

    before, now = _with_store(versions, prepare=False)
    was = "as before" if before == now else f"before: {before or 'none'}"
    typer.echo(f"the tables of links are at step {now} ({was})")


def _with_store(use: Callable[[LinkStore], Awaitable[Answer]], *, prepare: bool = True) -> Answer:
    """Do one thing with the links of DATABASE_URL, or say what is wrong and exit with 1."""
    settings = settings_or_exit(CollectorSettings)

    async def use_it() -> Answer:
        store = LinkStore(settings.database_url.get_secret_value())
        try:
            if prepare:
                await store.prepare()
            return await use(store)
        finally:
            await store.close()

    try:
        return asyncio.run(use_it())
    except LinkStoreError as error:
        give_up(f"{error}: see that the database runs and that DATABASE_URL names it.", FAILED)
    except InvalidLinkError as error:
        give_up(f"{error}.", FAILED)


def _content(file: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        give_up(f"{file} cannot be read ({error.strerror}): give the name of a file.", WRONG_USE)


async def _found(store: LinkStore, name: str) -> Link:
    link = await store.find(name)
    if link is None:
        give_up(f"There is no link `{name}`: `collector links list` shows what there is.", FAILED)
    return link


def _all_links() -> list[Link]:
    everything = _with_store(lambda store: store.changes_since(0))
    if everything.unreadable:
        ids = ", ".join(map(str, everything.unreadable[:10]))
        give_up(
            f"{len(everything.unreadable)} rows in the database are no links: mend or remove {ids}.", FAILED
        )
    return sorted(everything.links, key=lambda link: link.id)


@contextmanager
def _wrong_use() -> Iterator[None]:
    """Exit with 2 and one sentence where the options make no link."""
    try:
        yield
    except InvalidLinkError as error:
        give_up(f"{error}.", WRONG_USE)


def _show(titles: Iterable[str], rows: Iterable[Iterable[str | None]]) -> None:
    show_rows(titles, [[re.sub(r"\s", " ", cell or "") for cell in row] for row in rows])


def _state(link: Link) -> str:
    return state_of(link, time.time_ns() // 1_000_000).replace("_", " ")


def _devices(link: Link) -> dict[str, str]:
    """Give who may come, with their platforms: three that everybody asks for, and all that the link names."""
    usual = {"iPhone": "ios", "Android": "android", "desktop": "windows"}
    named = set(link.target_url) - {*usual.values(), "default", "fallback"}
    return usual | {platform: platform for platform in sorted(named)}


def _paths(link: Link) -> list[str]:
    """Give where the link is on its host, the shortest first."""
    return [*([f"/{link.slug}"] if link.slug else []), f"/click/{link.id}/go"]


def _targets(link: Link) -> str:
    return ", ".join(f"{platform} → {target}" for platform, target in link.target_url.items())


def _findable(link: Link) -> str:
    return " ".join([link.slug or "", link.campaign or "", link.network or "", *link.tags]).lower()
