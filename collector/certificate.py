"""A certificate with its key: PEM bytes in, a TLS context that was tried in a handshake out.

What is wrong with one is found here, not by a visitor: `certificate_from_pem` gives a whole, working Certificate
or raises InvalidCertificateError with the reason in a few words. Expired ones are whole: the caller decides.
"""

import re
import ssl
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NoReturn

from process.pem import as_file

_LEAF: Final = re.compile(rb"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")
_BEGIN: Final = re.compile(rb"^-----BEGIN [A-Z0-9 ]+-----", re.MULTILINE)
_END: Final = re.compile(rb"^-----END [A-Z0-9 ]+-----", re.MULTILINE)
_PRIVATE_KEY: Final = re.compile(rb"^-----BEGIN ([A-Z]+ )*PRIVATE KEY-----", re.MULTILINE)

_OTHER_KEY: Final = {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}
"""What OpenSSL calls a key that is another certificate's; the last one when even the kinds differ (RSA, EC)."""

_NO_CHECK_TIME: Final = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME, which the ssl module does not name."""

_HANDSHAKE_TURNS: Final = 3
"""Each side speaks twice in TLS 1.3, and one turn more does no harm."""


class InvalidCertificateError(Exception):
    """A certificate that cannot be served; the text is the reason, in a few words."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A context that can speak for the certificate's names."""

    context: ssl.SSLContext
    names: tuple[str, ...]
    expires: datetime


def new_context() -> ssl.SSLContext:
    """Give a context without a certificate: TLS 1.2 and 1.3, Python's ciphers, HTTP/1.1."""
    # Not create_default_context: that would write every session's keys where SSLKEYLOGFILE says.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    context.num_tickets = 1  # a second one is 5 % of a new visitor (measured), who seldom comes back once
    return context


def certificate_from_pem(chain: bytes, key: bytes) -> Certificate:
    """Give the certificate that `chain` (the leaf first) and its `key` are, or raise InvalidCertificateError."""
    leaf = _LEAF.search(chain)
    if leaf is None:
        raise InvalidCertificateError("there is no whole PEM certificate in it")
    if _PRIVATE_KEY.search(key) is None:
        raise InvalidCertificateError("there is no PEM private key in it")
    if any(len(_BEGIN.findall(pem)) != len(_END.findall(pem)) for pem in (chain, key)):
        raise InvalidCertificateError("it ends in the middle, as a file does that is being written")
    context = new_context()
    with as_file(chain) as chain_path, as_file(key) as key_path:
        try:
            context.load_cert_chain(chain_path, key_path, password=_no_password)
        except ssl.SSLError as error:
            if error.reason in _OTHER_KEY:
                raise InvalidCertificateError("the key is not this certificate's") from None
            raise InvalidCertificateError(f"OpenSSL cannot read it ({_said(error)})") from None
    try:
        about = _introduced(context, leaf[0].decode("ascii"))
    except ssl.SSLError as error:
        raise InvalidCertificateError(f"a client would refuse it ({_said(error)})") from None
    return Certificate(
        context,
        names=tuple(name for kind, name in about.get("subjectAltName", ()) if kind in {"DNS", "IP Address"}),
        expires=datetime.fromtimestamp(ssl.cert_time_to_seconds(about["notAfter"]), UTC),
    )


def _introduced(context: ssl.SSLContext, leaf: str) -> dict[str, Any]:
    """Shake hands with a client of ours that trusts just this leaf; give what it learns. Raises ssl.SSLError."""
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    trusting.load_verify_locations(cadata=leaf)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(to_client, to_server)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(_HANDSHAKE_TURNS):
        for side in (client, server):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
    return client.getpeercert() or {}


def _no_password() -> NoReturn:
    """Stand in for OpenSSL's own way, which is to ask on the terminal and wait."""
    raise InvalidCertificateError("the key is encrypted: give it without a password")


def _said(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return (error.reason or "no PEM that it knows").lower().replace("_", " ")
