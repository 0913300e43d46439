"""TLS towards Kafka: whom we trust, and who we are, from PEM texts or files."""

import ssl
from pathlib import Path

from pydantic import SecretStr

from kafkastore.settings import KafkastoreSettings
from process.pem import as_file


class CertificateError(Exception):
    """A certificate or key that cannot be used; the sentence names the variable."""


def tls_context(settings: KafkastoreSettings) -> ssl.SSLContext:
    """Give the TLS context: TLS 1.2 or newer, the authority always checked, the name unless told otherwise.

    Certificates are read each time: what is renewed on disk is in use from the next client on. Raises
    CertificateError.
    """
    if settings.kafka_trusted_cert:
        context = _trusting(_pem("KAFKA_TRUSTED_CERT", settings.kafka_trusted_cert))
    else:
        context = ssl.create_default_context()
    context.check_hostname = settings.kafka_ssl_check_hostname
    if settings.kafka_client_cert and settings.kafka_client_cert_key:
        _load_client(
            context,
            _pem("KAFKA_CLIENT_CERT", settings.kafka_client_cert),
            _pem("KAFKA_CLIENT_CERT_KEY", settings.kafka_client_cert_key),
        )
    return context


def _trusting(authority: str) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cadata=authority)
    except (ssl.SSLError, ValueError) as error:
        raise CertificateError(f"KAFKA_TRUSTED_CERT is no PEM certificate ({error}): mend it") from None
    # Python 3.13 began to demand extensions that authorities made by hand often leave out.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _load_client(context: ssl.SSLContext, certificate: str, key: str) -> None:
    with as_file(f"{certificate}\n{key}\n".encode()) as path:
        try:
            context.load_cert_chain(path, password="")  # or OpenSSL would ask the terminal for one
        except (ssl.SSLError, ValueError) as error:
            raise CertificateError(
                f"KAFKA_CLIENT_CERT and KAFKA_CLIENT_CERT_KEY are no PEM pair ({error}): mend them"
            ) from None


def _pem(variable: str, value: SecretStr) -> str:
    """Give the PEM text of a variable: itself, its newlines real or written as two characters, or a file's."""
    text = value.get_secret_value()
    if "-----BEGIN" in text:
        return text.replace("\\n", "\n")
    try:
        return Path(text).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CertificateError(
            f"{variable} is neither PEM text nor a file that can be read ({error})"
        ) from None
