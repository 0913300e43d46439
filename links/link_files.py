"""Files of links, read and written: CSV, JSON Lines, JSON, and what Firebase Dynamic Links exports.

JSON is an array of records, or an object that has one as `campaign_links`. The name tells the form, else the
content does. UTF-8, with or without a byte order mark, lines ending as they like. Every row gives a link or says
what is wrong with it.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from links.csv_form import cells_of, column_of, columns_of, record_of_cells
from links.firebase import firebase_record, is_firebase
from links.link import InvalidLinkError, Link, draft_of, record_of

_JSON: Final = ("json", "jsonl", "ndjson")
_CSV: Final = ("csv", "tsv")
_IGNORED: Final = frozenset({"created_at", "updated_at"})
"""What databases add to a record of their own accord, and no link is made of."""


class UnreadableFileError(Exception):
    """The whole file is of no use; one sentence with the cure."""


@dataclass(frozen=True, slots=True)
class Row:
    """What one row came to."""

    number: int
    """The line it begins in; in a JSON array the number of the element. Both count from 1."""
    link: Link | InvalidLinkError


def read_links(content: bytes, name: str) -> Iterator[Row]:
    """Read a file, row by row; raises UnreadableFileError, also on the way."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UnreadableFileError(f"{name}:{line}: this is not UTF-8: save the file as UTF-8.") from None
    suffix = name.lower().rpartition(".")[2]
    if suffix in _JSON or (suffix not in _CSV and text.lstrip().startswith(("{", "["))):
        return _json_rows(text, name, suffix)
    return _csv_rows(text, name)


def json_line(link: Link) -> str:
    """Write a link as a line of JSON; what is null or as by default is left out."""
    default = record_of(Link(id=link.id))
    return json.dumps(
        {name: value for name, value in record_of(link).items() if name == "id" or value != default[name]},
        ensure_ascii=False,
    )


def csv_lines(links: Sequence[Link]) -> Iterator[str]:
    """Write links as CSV, titles first."""
    columns = columns_of(links)
    for cells in (columns, *(cells_of(link, columns) for link in links)):
        line = io.StringIO()
        csv.writer(line).writerow(cells)
        yield line.getvalue()


def _json_rows(text: str, name: str, suffix: str) -> Iterator[Row]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        # One object a line is no JSON as a whole, and neither is what somebody broke: then its first line is none.
        if suffix == "json" and not isinstance(_loaded(text.lstrip().partition("\n")[0]), dict):
            raise UnreadableFileError(f"{name}: this is no JSON ({error}): mend it and try again.") from None
        return (
            Row(number, _link(_loaded(line))) for number, line in enumerate(_lines(text), 1) if line.strip()
        )
    if isinstance(value, dict) and isinstance(value.get("campaign_links"), list):
        value = value["campaign_links"]
    records = value if isinstance(value, list) else [value]
    return (Row(number, _link(record)) for number, record in enumerate(records, 1))


def _csv_rows(text: str, name: str) -> Iterator[Row]:
    first = text.lstrip("\r\n").partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count), strict=True)
    rows = _numbered(reader, name)
    titles = next((cells for _, cells in rows), [])
    if is_firebase(titles):
        return (Row(number, _firebase(titles, cells)) for number, cells in rows)
    try:
        columns = [column_of(title) for title in titles]
    except InvalidLinkError as error:
        raise UnreadableFileError(f"{name}:1: {error}: the first line names a field a column.") from None
    if not columns:
        raise UnreadableFileError(f"{name}: this file is empty.")
    return (Row(number, _from_cells(columns, cells)) for number, cells in rows)


def _numbered(reader: Any, name: str) -> Iterator[tuple[int, list[str]]]:
    """Give the rows that are not empty with the lines they begin in: a cell may hold line ends."""
    number = 1
    try:
        for cells in reader:
            if any(cells):
                yield number, cells
            number = reader.line_num + 1
    except csv.Error as error:
        raise UnreadableFileError(f"{name}:{number}: this is no CSV ({error}): mend the line.") from None


def _from_cells(columns: Sequence[str], cells: Sequence[str]) -> Link | InvalidLinkError:
    try:
        return draft_of(record_of_cells(columns, cells))
    except InvalidLinkError as error:
        return error


def _firebase(titles: Iterable[str], cells: Iterable[str]) -> Link | InvalidLinkError:
    return _link(dict(zip(titles, cells, strict=False)))


def _link(record: Any) -> Link | InvalidLinkError:
    try:
        if isinstance(record, InvalidLinkError):
            raise record
        if isinstance(record, dict):
            if is_firebase(record):
                record = firebase_record(record)
            record = {name: value for name, value in record.items() if name not in _IGNORED}
        return draft_of(record)
    except InvalidLinkError as error:
        return error


def _lines(text: str) -> Iterator[str]:
    """Give the lines one by one; all at once they would be the file again. JSON may hold U+2028."""
    start = 0
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        yield text[start:end]
        start = end + 1


def _loaded(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        return InvalidLinkError("record", f"this is no JSON ({error})")
