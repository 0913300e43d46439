"""What a batch of events adds to the totals: counted here, once, so that SQL adds a row a link and not a row a click.

Whatever a value holds, it becomes rows that the database takes, or a reason why not.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import msgspec

NO_LINK: Final = -1
"""The link of clicks that name none, from trackers older than links' numbers."""

COUNTRY: Final = "country"
PLATFORM: Final = "platform"
REFERRER: Final = "referrer"

PREVIEW: Final = "preview"
"""The bots' class that says that somebody shared the link."""

UNKNOWN: Final = ""
"""A country or a platform that is not known, the referrer of a click that names none: a key is never null in SQL."""

_MOST_CHARACTERS: Final = 255
"""Of a country, a platform or a domain; a host name has at most 253."""

_Id = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Visitor = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
_EventId = Annotated[str, msgspec.Meta(pattern="^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$")]


class Click(msgspec.Struct, frozen=True, tag_field="schema", tag="click/1"):
    """What is counted of a click; its other fields are not looked at."""

    clicked_at: datetime
    link_id: _Id | None
    user_id: _Id | None
    visitor_id: _Visitor | None
    country: str | None
    platform: str | None
    referer: str | None
    bot_class: str | None


class Referral(msgspec.Struct, frozen=True, tag_field="schema", tag="referral/1"):
    """What is kept of a referral."""

    event_id: _EventId
    clicked_at: datetime
    domain: str | None
    registrable_domain: str | None
    host: str | None
    path: str | None
    visitor_id: str | None
    country: str | None
    platform: str | None
    bot_name: str | None
    bot_class: str | None
    utm_source: str | None
    utm_medium: str | None
    utm_campaign: str | None
    utm_term: str | None
    utm_content: str | None


decode: Final = msgspec.json.Decoder(Click | Referral).decode

LinkDay = tuple[int, date]
"""A link and a UTC day."""


@dataclass(slots=True)
class Counts:
    """What is to be added."""

    users: Counter[int] = field(default_factory=Counter)
    """People's clicks by the owner of the link."""
    clicks: Counter[LinkDay] = field(default_factory=Counter)
    """People's."""
    bots: Counter[LinkDay] = field(default_factory=Counter)
    """Bots' clicks, previews among them."""
    previews: Counter[LinkDay] = field(default_factory=Counter)
    """Those of bots that show a link's preview in a chat or a feed."""
    by: Counter[tuple[int, date, str, str]] = field(default_factory=Counter)
    """People's clicks by a country, a platform or a referrer's domain."""
    visitors: set[tuple[int, date, bytes]] = field(default_factory=set)
    """Who clicked on what when."""
    referrals: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Rows by event id."""
    dead: list[tuple[Any, str]] = field(default_factory=list)
    """Records that are no events, and why."""

    @property
    def links(self) -> Counter[int]:
        """People's clicks by link, those that name one."""
        links: Counter[int] = Counter()
        for (link_id, _), clicks in self.clicks.items():
            if link_id != NO_LINK:
                links[link_id] += clicks
        return links


def counts_of(records: Iterable[Any]) -> Counts:
    """Count records of Kafka's."""
    counts = Counts()
    for record in records:
        if record.value is None:
            counts.dead.append((record, "there is no value"))
            continue
        try:
            event = decode(record.value)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            counts.dead.append((record, f"this is no click/1 or referral/1 in JSON: {error}"))
            continue
        if isinstance(event, Click):
            _count(counts, event)
        else:
            counts.referrals[event.event_id.lower()] = _row(event)
    return counts


def _count(counts: Counts, click: Click) -> None:
    link_id = NO_LINK if click.link_id is None else click.link_id
    day = _utc(click.clicked_at).date()
    if click.bot_class is not None:
        counts.bots[link_id, day] += 1
        counts.previews[link_id, day] += click.bot_class == PREVIEW
        return
    counts.clicks[link_id, day] += 1
    counts.by[link_id, day, COUNTRY, _short(click.country)] += 1
    counts.by[link_id, day, PLATFORM, _short(click.platform)] += 1
    counts.by[link_id, day, REFERRER, _short(referrer_domain(click.referer))] += 1
    if click.user_id is not None:
        counts.users[click.user_id] += 1
    if click.visitor_id is not None:
        counts.visitors.add((link_id, day, bytes.fromhex(click.visitor_id)))


def _row(referral: Referral) -> dict[str, Any]:
    row = msgspec.structs.asdict(referral)
    row["event_id"] = referral.event_id.lower()
    row["logged_at"] = _utc(row.pop("clicked_at"))
    row["suspected_bot"] = referral.bot_class is not None
    row["domain"] = referral.domain and _short(referral.domain)
    return {name: _text(value) if isinstance(value, str) else value for name, value in row.items()}


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


_URL: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")


def referrer_domain(referer: str | None) -> str | None:
    """Give the host name of a click's `referer`: it is one already, unless REFERER=full keeps whole URLs."""
    if referer is None or not _URL.match(referer):
        return referer
    try:
        return urlsplit(referer).hostname
    except ValueError:  # brackets that hold no address
        return None


def _short(text: str | None) -> str:
    return UNKNOWN if text is None else _text(text)[:_MOST_CHARACTERS]


def _text(text: str) -> str:
    """PostgreSQL has no NUL in its texts."""
    return text.replace("\0", "\ufffd") if "\0" in text else text
