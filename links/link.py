"""What a campaign link is, and what makes one valid.

A record is a link as JSON has it: an object whose keys are the fields. `link_of` and `record_of` are the two ways.
"""

import json
import re
from datetime import UTC, datetime
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import msgspec

SCHEMES: Final = frozenset({"http", "https", "market", "itms-apps", "itms-appss", "intent"})
"""Schemes every target may have; a link's `schemes` adds to them."""

FORBIDDEN_SCHEMES: Final = frozenset({"javascript", "data", "vbscript", "file", "blob"})
"""Schemes no link can add: they run or read something on the visitor's machine."""

RESERVED_SLUGS: Final = frozenset(
    {"api", "check", "click", "console", "favicon", "healthz", "metrics", "readyz", "robots", "t"}
)

_SLUG: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CONTROLS_OR_SPACE: Final = re.compile(r"[\x00-\x20\x7f]")
_UNWRITABLE: Final = re.compile("[\x00\ud800-\udfff]")
"""PostgreSQL keeps no NUL, and half a surrogate pair is no character: JSON can spell both."""
LARGEST_ID: Final = 10**18 - 1
UNNUMBERED: Final = -1
"""The id of a link that has none yet: the store gives it one."""

_MOST_MINUTES: Final = 60 * 24 * 3650
"""Ten years: a longer attribution window is a typing error, and its end may be no date at all."""

_RANGES: Final = {
    "id": (0, LARGEST_ID, "wanted 1 to 18 digits"),
    "user_id": (-LARGEST_ID, LARGEST_ID, "wanted up to 18 digits"),
    "attribution_window_fingerprint": (0, _MOST_MINUTES, f"wanted minutes, 0 to {_MOST_MINUTES}"),
    "attribution_window_idfa": (0, _MOST_MINUTES, f"wanted minutes, 0 to {_MOST_MINUTES}"),
}


class InvalidLinkError(ValueError):
    """A record that is no link: one sentence that names the field."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


class Link(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, gc=False):
    """A campaign link: who is behind it, and where it sends which device."""

    id: int
    campaign: str | None = None
    adgroup: str | None = None
    ad: str | None = None
    campaign_url: str | None = None
    target_url: dict[str, str | None] = {}
    """By platform; `default` and `fallback` serve the platforms that are not named."""
    attribution_window_fingerprint: int | None = None
    """Minutes in which an install may be matched by address and platform."""
    attribution_window_idfa: int | None = None
    """Minutes in which an install may be matched by advertising id."""
    network: str | None = None
    country: str | None = None
    device: str | None = None
    user_id: int | None = None
    slug: str | None = None
    mode: Literal["redirect", "proxy"] = "redirect"
    utm_source: str | None = None
    utm_medium: str | None = None
    utm_campaign: str | None = None
    utm_term: str | None = None
    utm_content: str | None = None
    forward_query: bool = False
    store_referrer: bool = False
    schemes: list[str] = []
    starts_at: datetime | None = None
    expires_at: datetime | None = None
    enabled: bool = True
    tags: list[str] = []

    def target(self, platform: str) -> str | None:
        """Give the target URL for a platform: its own, else `default`, else `fallback`; a blank one is none.

        The first that is present decides, also when it is blank.
        """
        for name in (platform, "default", "fallback"):
            target = self.target_url.get(name)
            if target is not None:
                return target.strip() or None
        return None


def link_of(record: Any) -> Link:
    """Read a record (JSON as Python values); raise InvalidLinkError that names the field."""
    if not isinstance(record, dict):
        raise InvalidLinkError("record", "wanted a JSON object")
    unknown = sorted(set(record) - set(Link.__struct_fields__))
    if unknown:
        raise InvalidLinkError(unknown[0], "a link has no such field")
    given = {name: value for name, value in record.items() if value is not None}
    try:
        link = msgspec.convert(given, Link)
    except msgspec.ValidationError as error:
        problem, _, where = str(error).partition(" - at `$.")
        field = re.split(r"[.\[`]", where)[0] if where else "id"
        raise InvalidLinkError(field, problem) from None
    _validate(link)
    return link


def link_from_json(text: str | bytes) -> Link:
    """Read one JSON record; raise InvalidLinkError."""
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidLinkError("record", f"this is no JSON ({error})") from None
    return link_of(record)


def draft_of(record: Any) -> Link:
    """Read a record that may have no id yet (then UNNUMBERED); raise InvalidLinkError."""
    if isinstance(record, dict) and record.get("id") is None:
        return msgspec.structs.replace(link_of({**record, "id": 0}), id=UNNUMBERED)
    return link_of(record)


def record_of(link: Link) -> dict[str, Any]:
    """Give every field of a link as JSON has it; `link_of` is the way back."""
    record: dict[str, Any] = msgspec.to_builtins(msgspec.structs.asdict(link))
    return record


def assigned(old: Link | None, record: dict[str, Any]) -> Link:
    """Give the link in which the keys of `record` are assigned and all others keep their value, if they had one."""
    return link_of({**(record_of(old) if old else {}), **record})


def _validate(link: Link) -> None:
    _validate_text(link)
    for name, (least, most, wanted) in _RANGES.items():
        if (number := getattr(link, name)) is not None and not least <= number <= most:
            raise InvalidLinkError(name, wanted)
    if link.slug is not None:
        _validate_slug(link.slug)
    for name in ("starts_at", "expires_at"):
        if (moment := getattr(link, name)) is not None and moment.tzinfo is None:
            raise InvalidLinkError(name, "wanted a time with its zone, as 2026-01-31T12:00:00Z")
    if forbidden := FORBIDDEN_SCHEMES.intersection(scheme.lower() for scheme in link.schemes):
        raise InvalidLinkError("schemes", f"`{min(forbidden)}` is never allowed")
    schemes = SCHEMES | {scheme.lower() for scheme in link.schemes}
    for platform, target in link.target_url.items():
        if target and target.strip():
            _validate_target(f"target_url[{platform}]", target, schemes)


def _validate_text(link: Link) -> None:
    for name in Link.__struct_fields__:
        value = getattr(link, name)
        texts = [*value, *value.values()] if isinstance(value, dict) else value
        for text in texts if isinstance(texts, list) else [texts]:
            if isinstance(text, str) and _UNWRITABLE.search(text):
                raise InvalidLinkError(name, "holds a character that cannot be stored (NUL, or half a pair)")


def _validate_slug(slug: str) -> None:
    if not _SLUG.fullmatch(slug):
        raise InvalidLinkError("slug", "wanted 1 to 64 letters, digits, `-` or `_`")
    if slug in RESERVED_SLUGS or slug.startswith("apple-"):
        raise InvalidLinkError("slug", f"`{slug}` is taken by a route")


def _validate_target(field: str, target: str, schemes: frozenset[str] | set[str]) -> None:
    if _CONTROLS_OR_SPACE.search(target.strip()):
        raise InvalidLinkError(field, "a URL holds no spaces or control characters")
    try:
        parts = urlsplit(target.strip())
    except ValueError as error:
        raise InvalidLinkError(field, f"this is no URL ({error})") from None
    if not parts.scheme:
        raise InvalidLinkError(field, "wanted a whole URL with its scheme, as https://…")
    if parts.scheme not in schemes:
        raise InvalidLinkError(field, f"scheme `{parts.scheme}` is not allowed")
    if parts.scheme in {"http", "https"} and not parts.hostname:
        raise InvalidLinkError(field, "wanted a host after the scheme")


def state_of(link: Link, at_ms: int) -> Literal["live", "not_started", "expired", "disabled"]:
    """Tell whether a link works at a Unix time in milliseconds."""
    if not link.enabled:
        return "disabled"
    at = datetime.fromtimestamp(at_ms / 1000, UTC) if link.starts_at or link.expires_at else None
    if at and link.starts_at and at < link.starts_at:
        return "not_started"
    if at and link.expires_at and at >= link.expires_at:
        return "expired"
    return "live"
