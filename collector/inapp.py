"""In-app events: what an app or a page reports of itself, as one request or as a list in a body. Pure.

A GET is one event: its path and its query as sent. A POST's body may be a JSON object or an array of objects (`event`
names the path, all other keys are params), a form, or empty; `navigator.sendBeacon` and `<a ping>` send those.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from collector.event import NO_PARAMS, Params, decode_query, encode_query

MOST_REPORTS: Final = 500
"""In one request: each becomes an event of its own."""

LONGEST_PATH: Final = 1024

_FORM: Final = "application/x-www-form-urlencoded"
_PING: Final = "text/ping"


class InvalidReportError(ValueError):
    """A body that reports nothing: one sentence for the developer who sent it."""


@dataclass(frozen=True, slots=True)
class Report:
    """One event as an app tells it."""

    path: str
    params: bytes
    """As in a query string; never empty."""


def report_of_get(path: str, query: bytes) -> Report:
    """Give the event of a GET: path and query exactly as they were sent."""
    return Report(path, query or NO_PARAMS)


def reports_of_post(
    path: str, query: bytes, content_type: str, body: bytes, ping: Sequence[tuple[bytes, bytes | None]]
) -> list[Report]:
    """Give the events of a POST; raises InvalidReportError. `ping`: where an `<a ping>` led from and to."""
    if content_type == _PING:
        return [_report(path, [*decode_query(query), *ping])]
    if content_type == _FORM:
        return [_report(path, [*decode_query(query), *decode_query(body)])]
    if not body.strip():
        return [report_of_get(path, query)]
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidReportError("the body is no JSON: wanted an object or an array of objects") from None
    told = told if isinstance(told, list) else [told]
    if len(told) > MOST_REPORTS:
        raise InvalidReportError(
            f"{len(told)} events are more than {MOST_REPORTS}: send them in several requests"
        )
    common = decode_query(query)
    return [_report_of_json(path, common, number, one) for number, one in enumerate(told)]


def _report_of_json(path: str, common: Params, number: int, told: Any) -> Report:
    if not isinstance(told, dict):
        raise InvalidReportError(f'event {number} is no object: wanted {{"event": "name", …}}')
    name = told.get("event")
    if name is not None:
        if not isinstance(name, str) or not name:
            raise InvalidReportError(f"event {number}: `event` is no name")
        path = "/t/" + quote(name.encode("utf-8", "replace"), safe="/")
    if len(path) > LONGEST_PATH:
        raise InvalidReportError(f"event {number}: its name is longer than {LONGEST_PATH} characters")
    pairs = [
        (key.encode("utf-8", "replace"), _text(one))
        for key, value in told.items()
        if key != "event"
        for one in (value if isinstance(value, list) else [value])
    ]
    return _report(path, [*common, *pairs])


def _text(value: Any) -> bytes | None:
    """Give a value as a parameter: null is a bare key, whatever is no text is its JSON."""
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")


def _report(path: str, pairs: Params) -> Report:
    return Report(path, encode_query(pairs) or NO_PARAMS)
