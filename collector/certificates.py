"""What is known of the certificates on the disk, name by name; a look gives a whole new table of it.

Pure but for `look`, which reads files: the files that look different from the look before, and no others.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from collector.certificate import Certificate, InvalidCertificateError, certificate_from_pem

OTHER_NAMES: Final = "TLS_CERT"
"""The key of the certificate for all names that have no folder; the other keys are in lower case."""

CHAIN_FILE: Final = "fullchain.pem"
KEY_FILE: Final = "privkey.pem"

Pem = bytes | Path
"""PEM text, or the file it is in."""

Seen = tuple[tuple[int, ...] | None, ...]
"""How two files looked: compared for being different only, so a clock that jumps does no harm."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a certificate and its key come from."""

    chain: Pem
    key: Pem


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one name: the certificate to serve, and why that is not the one on the disk."""

    seen: Seen
    certificate: Certificate | None
    refused: str | None = None
    confirmed: bool = False
    """Refused by two looks in a row: broken, and not just being written."""


@dataclass(frozen=True, slots=True)
class News:
    """One line of the log."""

    level: str
    event: str
    fields: Mapping[str, Any]


def look(other: Source | None, directory: Path | None, before: Mapping[str, Known]) -> dict[str, Known]:
    """Give what is known of every name now; only what looks different is read. Raises OSError for the directory."""
    sources = {OTHER_NAMES: other} if other else {}
    for folder in sorted(directory.iterdir()) if directory else ():
        # Dots begin the folders that Kubernetes keeps its versions in.
        if not folder.name.startswith(".") and folder.is_dir():
            sources[folder.name.lower()] = Source(folder / CHAIN_FILE, folder / KEY_FILE)
    seen = {name: (_seen(source.chain), _seen(source.key)) for name, source in sources.items()}
    return {
        name: _known(source, seen[name], before.get(name))
        for name, source in sources.items()
        if name == OTHER_NAMES or any(seen[name])  # a folder without the two files is no name
    }


def _known(source: Source, seen: Seen, before: Known | None) -> Known:
    again = before is not None and before.seen == seen
    if before is not None and again and (before.refused is None or before.confirmed):
        return before
    try:
        return Known(seen, certificate_from_pem(_read(source.chain, "certificate"), _read(source.key, "key")))
    except InvalidCertificateError as error:
        return Known(seen, before.certificate if before else None, refused=str(error), confirmed=again)


def served(known: Mapping[str, Known]) -> dict[str, Certificate]:
    """Give the certificates there are, in the order of their names."""
    return {name: one.certificate for name, one in sorted(known.items()) if one.certificate is not None}


def certificate_for(name: str | None, certificates: Mapping[str, Certificate]) -> Certificate | None:
    """Choose for a name as the client sent it (None: it sent none); without any certificate None."""
    host = (name or "").lower()
    for candidate in (host, f"*.{host.partition('.')[2]}", OTHER_NAMES):
        if candidate in certificates:
            return certificates[candidate]
    return next(iter(certificates.values()), None)


def news(before: Mapping[str, Known], after: Mapping[str, Known], now: datetime) -> Iterator[News]:
    """Tell what an operator should know of a change; nothing of what stayed."""
    for name, known in after.items():
        old = before.get(name)
        if known is old:
            continue
        certificate = known.certificate
        if known.refused is not None or certificate is None:
            if known.confirmed:
                kept = certificate.expires.isoformat() if certificate else None
                yield News(
                    "error",
                    "certificate_refused",
                    {"name": name, "reason": known.refused, "kept_expires": kept},
                )
            continue
        fields = {"name": name, "names": certificate.names, "expires": certificate.expires.isoformat()}
        yield News(
            "info", "certificate_reloaded" if old and old.certificate else "certificate_loaded", fields
        )
        if certificate.expires <= now:
            yield News("warning", "certificate_expired", fields)
    for name in before.keys() - after.keys():
        yield News("info", "certificate_removed", {"name": name})


def _read(pem: Pem, what: str) -> bytes:
    try:
        return pem if isinstance(pem, bytes) else pem.read_bytes()
    except OSError as error:
        # Without the path: what is no path may be a key that was pasted in a wrong way.
        raise InvalidCertificateError(f"its {what} file cannot be read: {error.strerror}") from None


def _seen(pem: Pem) -> tuple[int, ...] | None:
    """Tell a file's versions apart; None if there is no file."""
    if isinstance(pem, bytes):
        return ()
    try:
        about = pem.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        return (error.errno or 0,)
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns
