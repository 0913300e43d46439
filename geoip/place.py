"""Where an address is, read out of one record of a MaxMind-format table.

Three layouts are in use. `layout_of` tells which by one record; the function it names reads all the others:

- nested: GeoIP2, GeoLite2 and DB-IP, `{"country": {"iso_code": "DE"}, "city": {"names": {"en": "Berlin"}}, …}`
- coded: ip-location-db and IPinfo Lite, `{"country_code": "DE", "state1": "Berlin", "city": "Berlin", …}`
- plain: IPinfo's larger tables, `{"country": "DE", "region": "Berlin", "city": "Berlin", …}`
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import msgspec

Layout = Callable[[Mapping[str, Any]], "Place"]

# Written in the place of a country, but no country: "somewhere in Europe", "somewhere in Asia or the Pacific",
# "unknown". XK stays: it is what Kosovo's visitors expect, though ISO has not assigned it.
NO_COUNTRY = frozenset({"AP", "EU", "XX", "ZZ"})


class Place(msgspec.Struct, frozen=True, gc=False):  # a dataclass takes ten times as long to make
    """Each part is None where the table does not know it.

    country: ISO 3166-1 alpha-2, upper case. region: the subdivision's part of its ISO 3166-2 code ("BE" of DE-BE);
    tables that carry no code have its English name there instead. city: the English name.
    """

    country: str | None
    region: str | None
    city: str | None


NOWHERE = Place(None, None, None)


def layout_of(record: object) -> Layout | None:
    """The function that reads records shaped like this one; None if it does not speak of places."""
    match record:
        case {"country_code": str()}:
            return coded
        case {"country": str()}:
            return plain
        case {"country": {}} | {"registered_country": {}} | {"continent": {}} | {"city": {}}:
            return nested
        case _:
            return None


def nested(record: Mapping[str, Any]) -> Place:
    """GeoIP2's own layout. A registered_country alone is no place: it is the network owner's, not the visitor's."""
    country = region = city = None
    match record:
        case {"country": {"iso_code": code}}:
            country = _country(code)
    match record:
        case {"subdivisions": [{"iso_code": code}, *_]}:
            region = _text(code)
        case {"subdivisions": [{"names": {"en": name}}, *_]}:
            region = _text(name)
    match record:
        case {"city": {"names": {"en": name}}}:
            city = _text(name)
    return Place(country, region, city)


def coded(record: Mapping[str, Any]) -> Place:
    """A flat record whose `country_code` is the code; its `country`, if any, a name."""
    return Place(_country(record.get("country_code")), _region(record), _text(record.get("city")))


def plain(record: Mapping[str, Any]) -> Place:
    """A flat record whose `country` is the code."""
    return Place(_country(record.get("country")), _region(record), _text(record.get("city")))


def _region(record: Mapping[str, Any]) -> str | None:
    return _text(record.get("region_code")) or _text(record.get("state1")) or _text(record.get("region"))


def _country(code: object) -> str | None:
    return _known_country(code) if isinstance(code, str) else None


@lru_cache(maxsize=1024)  # there are 250
def _known_country(code: str) -> str | None:
    if len(code) != len("DE") or not (code.isascii() and code.isalpha()):
        return None
    code = code.upper()
    return None if code in NO_COUNTRY else code


def _text(value: object) -> str | None:
    # Flat tables write "" for what they do not know.
    return (value.strip() or None) if isinstance(value, str) else None
