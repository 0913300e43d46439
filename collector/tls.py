"""Which certificate a visitor meets: by name, replaced while connections live, never by a broken one.

TLS_DIR has a folder for each name; TLS_CERT speaks for all other names. The disk is looked at twice a second, in a
thread; a look gives a whole new table of what is known, so that no handshake sees half of a change. It is looked at
and not watched: what certbot and Kubernetes exchange are symbolic links, and network disks tell nobody of changes.
"""

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from collector.certificate import new_context
from collector.certificates import (
    CHAIN_FILE,
    KEY_FILE,
    OTHER_NAMES,
    Known,
    News,
    Pem,
    Source,
    certificate_for,
    look,
    news,
    served,
)
from collector.settings import CollectorSettings
from process.logs import log
from process.run import CannotStartError
from process.tasks import end

LOOK_SECONDS: Final = 0.4
"""Between two looks: a certificate found broken by both is reported, and that is still within a second."""


class Certificates:
    """The certificates in use."""

    def __init__(self, settings: CollectorSettings) -> None:
        """Load what TLS_CERT, TLS_KEY and TLS_DIR name. Raises CannotStartError."""
        self._other = _other_names(settings)
        self._directory = settings.tls_dir
        try:
            self._known = look(self._other, self._directory, look(self._other, self._directory, {}))
        except OSError as error:
            raise CannotStartError(
                f"TLS_DIR cannot be read ({error.strerror}): mend it, or unset it."
            ) from None
        self._served = served(self._known)
        # Without a certificate there is one thing to do: answer the authority that is asked for the first one.
        _check_start(self._known, bootstrap=settings.http_port is not None and settings.acme_dir is not None)
        self._trouble: str | None = None
        self.context = new_context()
        """What a listener needs: each handshake gets the certificate that its name has by then. Made before
        processes part, it has the same ticket keys in all of them: a session begun with one goes on with another."""
        self.context.sni_callback = self._choose
        _report(news({}, self._known, datetime.now(UTC)))

    def _choose(self, connection: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> int | None:
        certificate = certificate_for(name, self._served)
        if certificate is None:
            return ssl.AlertDescription.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        connection.context = certificate.context
        return None

    @asynccontextmanager
    async def kept_fresh(self, worker: int, stop: asyncio.Event) -> AsyncIterator[None]:
        """Look again and again meanwhile; an error nobody thought of sets `stop` and is raised at the end."""

        async def look_again() -> None:
            while True:
                await self.refresh(worker)
                await asyncio.sleep(LOOK_SECONDS)

        looking = asyncio.create_task(look_again())
        looking.add_done_callback(lambda _: stop.set())
        try:
            yield
        finally:
            if looking.done():
                looking.result()
            await end([looking])

    async def refresh(self, worker: int) -> None:
        """Take over what is new on the disk; what cannot be seen any more stays as it was."""
        trouble = None
        try:
            found = await asyncio.to_thread(look, self._other, self._directory, self._known)
        except OSError as error:
            trouble = error.strerror
        else:
            if self._served and not served(found):
                trouble = "no certificate is left in it"  # more likely a disk that went away than a decision
        if trouble is None:
            before, self._known, self._served = self._known, found, served(found)
            _report(news(before, found, datetime.now(UTC)), worker=worker)
        elif trouble != self._trouble:
            log.error("certificates_kept", reason=trouble, worker=worker)
        self._trouble = trouble


def say_nothing_of_strange_names() -> None:
    """Stop the ssl module from printing a traceback whenever a stranger sends a name that is not ASCII.

    It ends such a handshake before our function is asked, and has no other way to say so than the unraisable hook.
    """
    print_it = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if not (
            isinstance(unraisable.exc_value, UnicodeDecodeError) and isinstance(unraisable.object, bytes)
        ):
            print_it(unraisable)

    sys.unraisablehook = hook


def _other_names(settings: CollectorSettings) -> Source | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return Source(_pem(settings.tls_cert.get_secret_value()), _pem(settings.tls_key.get_secret_value()))


def _pem(value: str) -> Pem:
    if "-----BEGIN" in value:
        return value.replace("\\n", "\n").encode("utf-8", "surrogateescape")
    return Path(value)


def _check_start(known: Mapping[str, Known], *, bootstrap: bool) -> None:
    """Raise CannotStartError when nobody could be answered; one broken name of many does not stop the others."""
    other = known.get(OTHER_NAMES)
    if other is not None and other.refused:
        raise CannotStartError(f"TLS_CERT and TLS_KEY cannot be used ({other.refused}): mend them.")
    if served(known):
        return
    for name, one in known.items():
        raise CannotStartError(
            f"TLS_DIR has no certificate that can be used ({name}: {one.refused}): mend it."
        )
    if not bootstrap:
        raise CannotStartError(
            f"TLS_DIR has no <host>/{CHAIN_FILE} with its {KEY_FILE}: put one there, "
            "or set HTTP_PORT and ACME_DIR to obtain the first one."
        )
    log.warning("no_certificate", cure=f"obtain one: TLS_DIR needs <host>/{CHAIN_FILE} and {KEY_FILE}")


def _report(lines: Iterator[News], **fields: Any) -> None:
    for line in lines:
        getattr(log, line.level)(line.event, **line.fields, **fields)
