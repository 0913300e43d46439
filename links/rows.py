"""Rows of the table as links: which columns are read, in what order, and what a page of them comes to."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import Text, cast

from links.link import Link
from links.schema import LINKS

_FIELDS: Final = Link.__struct_fields__
_JSON_FIELDS: Final = ("target_url", "schemes", "tags")
COLUMNS: Final = (
    *(cast(LINKS.c[name], Text) if name in _JSON_FIELDS else LINKS.c[name] for name in _FIELDS),
    LINKS.c.revision,
    LINKS.c.deleted,
)


class Position(NamedTuple):
    """How far the changes were read: all before it, in this order, are known."""

    revision: int
    id: int


BEGINNING: Final = Position(0, -1)


@dataclass(slots=True)
class Changes:
    """What happened to the links since some revision, or a page of that."""

    links: list[Link] = field(default_factory=list)
    deleted: list[int] = field(default_factory=list)
    unreadable: list[int] = field(default_factory=list)
    """Ids of rows that are no links: somebody wrote them by other means than ours."""
    revision: int = 0


def changes_of(rows: Sequence[Any]) -> Changes:
    """Read rows of `COLUMNS`. What we wrote was valid, so only types are looked at."""
    changes = Changes()
    for row in rows:
        if row.deleted:
            changes.deleted.append(row.id)
            continue
        try:
            changes.links.append(_link(row))
        except (msgspec.ValidationError, msgspec.DecodeError):
            changes.unreadable.append(row.id)
    return changes


def _link(row: Any) -> Link:
    record = dict(zip(_FIELDS, row, strict=False))
    for name in _JSON_FIELDS:
        record[name] = _decoded(record[name])
    try:
        return msgspec.convert(record, Link)
    except msgspec.ValidationError:  # other programs may leave NULL where a field has a default
        return msgspec.convert({name: value for name, value in record.items() if value is not None}, Link)


def _decoded(text: str | None) -> Any:
    return [] if text == "[]" else text and msgspec.json.decode(text)
