"""What ClickHouse is given: a span of records as inserts, each of one partition and one month, and positions.

A click's value goes as it is, with where it was read put in front: ClickHouse parses it, and takes what it has
columns for.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from consumers.sink import Span

_SETTINGS: Final = (
    "date_time_input_format = 'best_effort', input_format_skip_unknown_fields = 1, "
    "input_format_null_as_default = 1, async_insert = 0, "
    "input_format_parallel_parsing = 0, "  # one insert is one block: a token stands for all of it
    "deduplicate_blocks_in_dependent_materialized_views = 1"
)


class _Click(msgspec.Struct, frozen=True, tag_field="schema", tag="click/1"):
    clicked_at: datetime


class _Referral(msgspec.Struct, frozen=True, tag_field="schema", tag="referral/1"):
    pass


_decode: Final = msgspec.json.Decoder(_Click | _Referral).decode
_encode: Final = msgspec.json.encode


@dataclass(frozen=True, slots=True)
class Insert:
    """Rows for one table that are one block."""

    table: str
    token: str
    """The same for the same rows: ClickHouse drops an insert whose token it has seen."""
    rows: Sequence[bytes]

    @property
    def sql(self) -> str:
        """The statement that the rows follow."""
        return (
            f"INSERT INTO {self.table} SETTINGS {_SETTINGS}, "
            f"insert_deduplication_token = {quoted(self.token)} FORMAT JSONEachRow"
        )


def inserts_of(cluster_id: str, span: Span) -> tuple[list[Insert], list[tuple[Any, str]]]:
    """Give the inserts of a span, a month each, and the records that are dead letters, with reasons."""
    where = _where(cluster_id, span)
    months: dict[tuple[int, int], list[bytes]] = {}
    dead: list[tuple[Any, str]] = []
    for record in span.records:
        if record.value is None:
            dead.append((record, "there is no value"))
            continue
        try:
            event = _decode(record.value)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            dead.append((record, f"this is no click/1 or referral/1 in JSON: {error}"))
            continue
        if isinstance(event, _Click):
            at = event.clicked_at.astimezone(UTC)
            rest = record.value[record.value.index(b"{") + 1 :]
            row = b'%b,"kafka_offset":%d,%b' % (where, record.offset, rest)
            months.setdefault((at.year, at.month), []).append(row)
    return [
        Insert("link_clicks", f"{_token(cluster_id, span)} {year}-{month}", rows)
        for (year, month), rows in months.items()
    ], dead


def burial_of(cluster_id: str, span: Span, dead: Iterable[tuple[Any, str]], died_at: datetime) -> Insert:
    """Give the insert of a span's dead letters."""
    where = _where(cluster_id, span)
    rows = []
    for record, reason in dead:
        value = None if record.value is None else record.value.hex()
        said = {"kafka_offset": record.offset, "died_at": died_at, "reason": reason, "value_hex": value}
        rows.append(where + b"," + _encode(said)[1:])
    return Insert("link_clicks_dead", _token(cluster_id, span), rows)


def position_row(cluster_id: str, span: Span, next_offset: int) -> bytes:
    """Give the row that says that everything before an offset is there, and maybe something up to the span's end."""
    return b'%b,"next_offset":%d,"open_until":%d}' % (_where(cluster_id, span), next_offset, span.end)


def position_of(next_offset: int, open_until: int, behind_rows: int) -> int:
    """Tell where to go on: the highest of all positions, of all ends of spans, and the end of the highest row.

    Behind the highest row, if that is behind every span of which some months may be missing: then it is from a span
    of one month, which was written whole before its position was. Else at the position: a span may have been read
    again in a shorter cut since, and behind that its rows are there of one month and not of another.
    """
    return behind_rows if behind_rows > open_until else next_offset


def _token(cluster_id: str, span: Span) -> str:
    """Name a span: what is committed between two offsets never changes."""
    return f"{cluster_id} {span.partition.topic}/{span.partition.partition} {span.begin}-{span.end}"


def _where(cluster_id: str, span: Span) -> bytes:
    """Give the beginning of a row: where it was read."""
    topic, partition = span.partition
    where = {"kafka_cluster": cluster_id, "kafka_topic": topic, "kafka_partition": partition}
    return _encode(where)[:-1]


def quoted(text: str) -> str:
    """Give a text as a literal of ClickHouse's SQL."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
