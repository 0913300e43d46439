"""A link as a row of a table: a column a field, and a column `target_url.<platform>` a target.

An empty cell is no value. A cell in double quotation marks is that text as JSON, which is how an empty text is
written. Flags are true or false (also yes, no, 1, 0); tags and schemes are separated by commas; what does not fit
into that is JSON. A `target_url` column may hold the whole JSON object, or one URL, which is the default's.
"""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from links.link import InvalidLinkError, Link, record_of

TARGET: Final = "target_url"
_WHOLE_NUMBERS: Final = ("id", "attribution_window_fingerprint", "attribution_window_idfa", "user_id")
_FLAGS: Final = ("forward_query", "store_referrer", "enabled")
_LISTS: Final = ("schemes", "tags")
_TRUE_OR_FALSE: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_PLAIN_ITEM: Final = re.compile(r"[^\s,\[\"]([^,]*[^\s,])?")


def column_of(title: str) -> str:
    """Give the field a column's title names, however a spreadsheet spells it; raise InvalidLinkError for no field."""
    field, dot, platform = title.strip().partition(".")
    name = re.sub(r"[\s-]+", "_", field.lower())
    if name not in Link.__struct_fields__ or (dot and name != TARGET):
        raise InvalidLinkError(title.strip() or "title", "a link has no such field")
    return name + dot + platform


def record_of_cells(columns: Sequence[str], cells: Sequence[str]) -> dict[str, Any]:
    """Give the record of a row; raise InvalidLinkError for a cell that is none of its column's."""
    if len(cells) > len(columns):
        raise InvalidLinkError("row", f"has {len(cells)} cells for {len(columns)} columns")
    record: dict[str, Any] = {}
    targets: dict[str, Any] = {}
    for column, cell in zip(columns, cells, strict=False):
        if cell == "":
            continue
        field, _, platform = column.partition(".")
        if field != TARGET:
            record[field] = _value(field, cell)
        elif platform:
            targets[platform] = _text(cell)
        else:
            targets = {**_json_or(cell, {"default": cell}), **targets}
    return {**record, TARGET: targets} if targets else record


def columns_of(links: Iterable[Link]) -> list[str]:
    """Give the columns that all these links need."""
    platforms = {
        platform: None for link in links if _in_columns(link) for platform in ("default", *link.target_url)
    }
    columns: list[str] = []
    for name in Link.__struct_fields__:
        columns.append(name)
        if name == TARGET:
            columns += [f"{TARGET}.{platform}" for platform in sorted(platforms)]
    return columns


def cells_of(link: Link, columns: Sequence[str]) -> list[str]:
    """Give the cells of a link: what `record_of_cells` reads as the same link."""
    record = record_of(link)
    targets = record.pop(TARGET)
    if _in_columns(link):
        record |= {f"{TARGET}.{platform}": target for platform, target in targets.items()}
    else:
        record[TARGET] = targets
    return [_cell(record.get(column)) for column in columns]


def _in_columns(link: Link) -> bool:
    """Tell whether the targets have titles and cells of their own; null and odd names are left to JSON."""
    return all(
        platform and platform == platform.strip() and target is not None
        for platform, target in link.target_url.items()
    )


def _value(field: str, cell: str) -> Any:
    if field in _WHOLE_NUMBERS:
        if not re.fullmatch(r"-?[0-9]{1,19}", cell.strip()):
            raise InvalidLinkError(field, "wanted a whole number")
        return int(cell)
    if field in _FLAGS:
        if cell.strip().lower() not in _TRUE_OR_FALSE:
            raise InvalidLinkError(field, "wanted true or false")
        return _TRUE_OR_FALSE[cell.strip().lower()]
    if field in _LISTS:
        return _json_or(cell, [item.strip() for item in cell.split(",") if item.strip()])
    return _text(cell)


def _text(cell: str) -> str:
    text = _json_or(cell, cell) if cell.startswith('"') else cell
    return text if isinstance(text, str) else cell


def _json_or(cell: str, otherwise: Any) -> Any:
    """Read a cell as JSON of the type that is wanted, else give that."""
    try:
        value = json.loads(cell)
    except ValueError:
        return otherwise
    return value if isinstance(value, type(otherwise)) else otherwise


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str():
            return json.dumps(value) if value == "" or value.startswith('"') else value
        case list() if all(_PLAIN_ITEM.fullmatch(item) for item in value):
            return ", ".join(value)
        case list() | dict():
            return json.dumps(value, ensure_ascii=False)
        case _:
            return str(value)
