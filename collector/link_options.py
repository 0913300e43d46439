"""The options of `collector links add` and `edit`: one for every field of a link, made from one table."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any, Final, TypeVar

import typer

from links.link import InvalidLinkError, Link, link_of, record_of

Command = TypeVar("Command", bound=Callable[..., None])

_TEXTS: Final = {
    "slug": "The short name: the link is also at /SLUG.",
    "campaign": "What the link is for.",
    "adgroup": "The part of the campaign.",
    "ad": "The advertisement, or where the poster hangs.",
    "network": "Who shows the link.",
    "campaign_url": "A page about the campaign; kept, not used.",
    "country": "Kept, not used.",
    "device": "Kept, not used.",
    "mode": "redirect, or proxy: fetch the target and hand it through.",
    "utm_source": "UTM of the clicks, and of the store's referrer.",
    "utm_medium": "The same.",
    "utm_campaign": "The same.",
    "utm_term": "The same.",
    "utm_content": "The same.",
    "starts_at": "From when the link works, as 2026-01-31T12:00:00Z.",
    "expires_at": "From when it no longer does.",
}
_NUMBERS: Final = {
    "attribution_window_fingerprint": "Minutes in which an install is matched by address and platform.",
    "attribution_window_idfa": "Minutes in which an install is matched by advertising id.",
    "user_id": "Whose link it is.",
}
_FLAGS: Final = {
    "forward_query": "Hand the visitor's parameters on to the target.",
    "store_referrer": "Hand UTMs and click on to the store, in its own way.",
    "enabled": "Whether the link works.",
}
_LISTS: Final = {
    "target": "Where a platform goes, as ios=URL, android=URL, default=URL. Repeat it.",
    "scheme": "A scheme that targets may have besides the usual ones, as myapp. Repeat it.",
    "tag": "A word to find links by. Repeat it.",
}
_FIELD_OF: Final = {"scheme": "schemes", "tag": "tags"}


def with_field_options(command: Command) -> Command:
    """Give a command, in place of its `**fields`, an option for every field; those not given are None or []."""
    signature = inspect.signature(command, eval_str=True)
    own = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
    command.__signature__ = signature.replace(parameters=[*own, *_options()])  # type: ignore[attr-defined]
    del command.__annotations__["fields"]
    return command


def record_from(fields: dict[str, Any]) -> dict[str, Any]:
    """Give what the options say, as a record of the fields they name; raise InvalidLinkError for a target."""
    record = {
        _FIELD_OF.get(name, name): value
        for name, value in fields.items()
        if value not in (None, []) and name != "target"
    }
    targets = {}
    for text in fields["target"] or []:
        platform, equals, url = text.partition("=")
        if not equals or not platform:
            raise InvalidLinkError("target", f"`{text}` is no PLATFORM=URL, as ios=https://…")
        targets[platform] = url
    return {**record, "target_url": targets} if targets else record


def edited(link: Link, changes: dict[str, Any], cleared: list[str]) -> Link:
    """Give the link with these fields changed and those cleared; targets are changed one by one."""
    record = record_of(link)
    targets = dict(record["target_url"])
    for name in cleared:
        field, _, platform = name.partition(".")
        if field == "target_url" and platform:
            targets.pop(platform, None)
        elif field == "target_url":
            targets = {}
        elif field in record and field != "id":
            record[field] = None
        else:
            raise InvalidLinkError(name, "a link has no such field that could be cleared")
    return link_of({**record, **changes, "target_url": {**targets, **changes.get("target_url", {})}})


def _options() -> list[inspect.Parameter]:
    return [
        *(_option("target", list[str] | None, _LISTS["target"], "PLATFORM=URL"),),
        *(_option(name, str | None, text, "TEXT") for name, text in _TEXTS.items()),
        *(_option(name, int | None, text, "NUMBER") for name, text in _NUMBERS.items()),
        *(_option(name, bool | None, text, None) for name, text in _FLAGS.items()),
        *(_option(name, list[str] | None, _LISTS[name], "TEXT") for name in ("scheme", "tag")),
    ]


def _option(name: str, kind: Any, text: str, metavar: str | None) -> inspect.Parameter:
    flag = "--" + name.replace("_", "-")
    if name == "enabled":
        flag = "--enabled/--disabled"
    elif name in _FLAGS:
        flag = f"{flag}/--no-{flag.removeprefix('--')}"
    option = typer.Option(flag, help=text, metavar=metavar, show_default=False)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, option]
    )
