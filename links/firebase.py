"""A Firebase dynamic link as a record of ours.

The export (Google Takeout, a CSV a domain, https://firebase.google.com/support/guides/export-dynamic-links) has
titles such as `Short link`, `Deep link (link)`, `iOS app store ID (isi)`; a long link has the parameters in
parentheses as its query. Either form, and JSON with those names, is read. `docs/links.md` has the table.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from links.link import InvalidLinkError

_SHORT: Final = "shortlink"
_LONG: Final = ("longlink", "longdynamiclink")
_OTHER_TITLES: Final = {
    "deeplink": "link",
    "linkname": "name",
    "itunesconnectat": "at",
    "itunesconnectct": "ct",
    "itunesconnectmt": "mt",
    "itunesconnectpt": "pt",
}
_UTMS: Final = ("utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content")
_APP_STORE: Final = "https://apps.apple.com/app/id"
_PLAY: Final = "https://play.google.com/store/apps/details?"


def is_firebase(titles: Iterable[str]) -> bool:
    """Tell whether a table or an object with these titles is of Firebase: no field of ours is named so."""
    return not {_name(title) for title in titles}.isdisjoint({_SHORT, *_LONG})


def firebase_record(row: Mapping[str, Any]) -> dict[str, Any]:
    """Give the record, without an id, of a row of the export; raise InvalidLinkError if it leads nowhere."""
    given = {_name(title): str(value).strip() for title, value in row.items() if value not in (None, "")}
    long_link = next((given[name] for name in _LONG if name in given), "")
    fields = {**_query_of(long_link), **given}
    target = fields.get("ofl") or fields.get("link")
    if not target:
        raise InvalidLinkError("link", "is missing: a dynamic link has a `Deep link (link)` or a long link")
    targets = {"default": target}
    if ios := fields.get("ifl") or _app_store(fields) or fields.get("link"):
        targets["ios"] = ios
    if android := fields.get("afl") or _play(fields) or fields.get("link"):
        targets["android"] = android
    return {
        "slug": urlsplit(fields.get(_SHORT, "")).path.rstrip("/").rpartition("/")[2] or None,
        "campaign": fields.get("name"),
        "target_url": {name: url for name, url in targets.items() if name == "default" or url != target},
        "store_referrer": any(utm in fields for utm in _UTMS),
        "tags": ["archived"] if fields.get("archived", "").lower() == "true" else [],
        **{utm: fields.get(utm) for utm in _UTMS},
    }


def _name(title: str) -> str:
    """Give the parameter a title names: the one in parentheses, else its letters (`Short link` → `shortlink`)."""
    in_parentheses = re.search(r"\((\w+)\)\s*$", title)
    if in_parentheses:
        return in_parentheses[1].lower()
    if title.lower() in _UTMS:
        return title.lower()
    letters = re.sub(r"[^a-z]", "", title.lower())
    return _OTHER_TITLES.get(letters, letters)


def _query_of(long_link: str) -> dict[str, str]:
    return {name: value for name, value in parse_qsl(urlsplit(long_link).query) if value}


def _app_store(fields: Mapping[str, str]) -> str | None:
    """Give the App Store's page with the campaign parameters Apple reads, if the link names an app."""
    if not (app := fields.get("isi")):
        return None
    query = urlencode({name: fields[name] for name in ("pt", "ct", "mt", "at") if name in fields})
    return f"{_APP_STORE}{app}" + (f"?{query}" if query else "")


def _play(fields: Mapping[str, str]) -> str | None:
    app = fields.get("apn")
    return _PLAY + urlencode({"id": app}) if app else None
