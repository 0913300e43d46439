"""Where a table is downloaded, at MaxMind or at a mirror, and what it means when there is none to be had. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final

import aiohttp
from yarl import URL

from geoip.settings import MAXMIND_URL, GeoipSettings
from process.settings import SettingsError

_EDITION: Final = re.compile(r"[A-Za-z0-9-]{1,64}")


class UpdateError(Exception):
    """There is no new table, and the old one is as it was. Its text is one sentence with the cure."""


@dataclass(frozen=True, slots=True)
class Source:
    """One edition at one place."""

    edition: str
    archive: URL
    checksum: URL
    headers: Mapping[str, str] = field(repr=False)
    """The account's credentials, or none."""


def source_of(settings: GeoipSettings, edition: str, url: str | None = None) -> Source:
    """Give the source of an edition, at `url` rather than MAXMIND_URL; raises SettingsError for wrong use."""
    if not _EDITION.fullmatch(edition):
        raise SettingsError(f"{edition!r} is no edition: take one such as GeoLite2-City or GeoIP2-Country.")
    template = url or settings.maxmind_url
    account, key = settings.maxmind_account_id, settings.maxmind_license_key
    headers: dict[str, str] = {}
    if account is not None and key is not None:
        headers["Authorization"] = aiohttp.encode_basic_auth(account, key.get_secret_value())
    elif template == MAXMIND_URL:
        raise SettingsError(
            "MAXMIND_ACCOUNT_ID and MAXMIND_LICENSE_KEY are not set: "
            "sign up for GeoLite at https://www.maxmind.com/en/geolite2/signup to have them."
        )
    address = template.replace("{edition}", edition)
    return Source(edition, _url(address, secret=bool(headers)), URL(f"{address}.sha256"), headers)


def refusal(status: int, url: URL, source: Source) -> str:
    """Say what the status means of an answer without an archive that came from `url`, and what helps."""
    host = url.host
    if url.origin() != source.archive.origin():
        return (
            f"{host}, where {source.archive.host} keeps its archives, answered {status}: "
            "run this again later, and see that no firewall or proxy answers in its place."
        )
    match status:
        case 401:
            return (
                f"{host} knows no such account and licence key (401): compare MAXMIND_ACCOUNT_ID and "
                "MAXMIND_LICENSE_KEY with the account's page of licence keys; new keys need a few minutes."
            )
        case 403:
            return (
                f"{host} does not let this account download {source.edition} (403): "
                "take an edition of its subscription, or a key that may download databases."
            )
        case 404:
            return (
                f"{host} has no {source.edition} (404): take --edition GeoLite2-City, GeoLite2-Country, "
                "GeoIP2-City or GeoIP2-Country."
            )
        case 429:
            return (
                f"{host} has given this account all the downloads of a day (429; GeoLite: 30): "
                "run this again tomorrow, and download once for several machines."
            )
        case _:
            return f"{host} answered {status}: run this again later."


def failure(error: Exception | None, source: Source, kept_bytes: int = 0) -> str:
    """Say why there was no answer, or no whole one; names hosts only, for a storage's address is signed."""
    kept = f" and goes on after the {kept_bytes} bytes that have arrived" if kept_bytes else ""
    match error:
        case aiohttp.ClientConnectorError():
            why = error.strerror or type(error.os_error).__name__
            return (
                f"{error.host} cannot be reached ({why}): check the network, "
                f"and that a firewall or proxy lets {error.host} through; the next run tries again{kept}."
            )
        case TimeoutError():
            return f"{source.archive.host} is too slow: the next run tries again{kept}."
        case _:
            return (
                f"The connection to {source.archive.host} broke off ({type(error).__name__}): "
                f"the next run tries again{kept}."
            )


def _url(address: str, *, secret: bool) -> URL:
    try:
        url = URL(address)
    except ValueError:
        url = URL()
    if url.scheme not in ("http", "https") or not url.host or url.user or url.password:
        # Without the address, for it may hold a password.
        raise SettingsError(
            "MAXMIND_URL or --url does not parse; wanted: the http:// or https:// address of a .tar.gz, "
            "{edition} in it, without a user."
        )
    if secret and url.scheme == "http" and not _this_machine(url.host):
        raise SettingsError(
            f"The licence key does not go to {url.host} without TLS: write https://, "
            "or unset MAXMIND_ACCOUNT_ID and MAXMIND_LICENSE_KEY for a mirror that needs none."
        )
    return url


def _this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
