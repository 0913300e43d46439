"""How Kafka is reached: what every client of aiokafka's is told, and why one was turned away, as a sentence."""

import ssl
from typing import Any, Final

from aiokafka.conn import create_conn
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

from kafkastore.settings import KafkastoreSettings
from kafkastore.tls import CertificateError, tls_context
from process.tasks import within

_ASK_SECONDS: Final = 3.0
"""For a broker to show what it dislikes, after a client could not start."""

_OTHER_NAME: Final = {62, 64}
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""


class PublishError(Exception):
    """Kafka did not take, or did not tell, what it should, as far as is known."""


def connection(settings: KafkastoreSettings) -> dict[str, Any]:
    """Give the arguments with which any client of aiokafka's connects; raises PublishError."""
    tls, mechanism = settings.kafka_tls, settings.kafka_sasl_mechanism
    arguments: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_url,
        "security_protocol": ("SASL_" if mechanism else "") + ("SSL" if tls else "PLAINTEXT"),
    }
    if tls:
        try:
            arguments["ssl_context"] = tls_context(settings)
        except CertificateError as error:
            raise PublishError(str(error)) from None
    if mechanism and settings.kafka_sasl_password:
        arguments |= {
            "sasl_mechanism": mechanism,
            "sasl_plain_username": settings.kafka_sasl_username,
            "sasl_plain_password": settings.kafka_sasl_password.get_secret_value(),
        }
    return arguments


async def start(client: Any, settings: KafkastoreSettings, seconds: float) -> None:
    """Start a client of aiokafka's within `seconds`; raises PublishError that says what is wrong."""
    try:
        await within(seconds, client.start())
    except KafkaConnectionError as error:
        raise PublishError(await _why_turned_away(settings)) from error
    except (KafkaError, OSError) as error:  # TimeoutError is an OSError
        raise PublishError(f"Kafka at {settings.kafka_url} gives no answer: {error!r}") from error


async def _why_turned_away(settings: KafkastoreSettings) -> str:
    """Ask each broker once more: aiokafka tells only that none could be asked."""
    arguments = connection(settings)
    brokers = arguments.pop("bootstrap_servers").split(",")
    for broker in brokers:
        host, _, port = broker.rpartition(":")
        try:
            await within(_ASK_SECONDS, _ask(host.strip("[]"), int(port), arguments))
        except (KafkaError, OSError, EOFError) as error:
            return f"Kafka at {broker} {_sentence(settings, error)}"
    return f"Kafka at {settings.kafka_url} answers only now and then"


async def _ask(host: str, port: int, arguments: dict[str, Any]) -> None:
    milliseconds = int(_ASK_SECONDS * 1000)
    conn = await create_conn(host, port, request_timeout_ms=milliseconds, **arguments)
    try:
        await conn.send(MetadataRequest([]))
    finally:
        conn.close()


def _sentence(settings: KafkastoreSettings, error: Exception) -> str:
    match error:
        case ssl.SSLError() | ConnectionResetError() | ConnectionAbortedError() if settings.kafka_tls:
            return _tls_sentence(settings, error)
        case UnsupportedSaslMechanismError():
            return f"does not offer {settings.kafka_sasl_mechanism}: mend KAFKA_SASL_MECHANISM"
        case SaslAuthenticationFailed():
            return "refuses the name or the password: mend KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"
        case IllegalSaslStateError():
            return "wants no user name here: unset KAFKA_SASL_MECHANISM, or mend KAFKA_URL"
        case KafkaConnectionError():
            return f"hangs up: {_what_it_may_want(settings)}"
        case _:
            return f"cannot be reached ({str(error) or repr(error)}): start it, or mend KAFKA_URL"


def _what_it_may_want(settings: KafkastoreSettings) -> str:
    if not settings.kafka_tls:
        wanted = "kafka+ssl:// in KAFKA_URL"
    elif settings.kafka_client_cert is None:
        wanted = "KAFKA_CLIENT_CERT and KAFKA_CLIENT_CERT_KEY"
    else:
        wanted = "another KAFKA_CLIENT_CERT"
    return f"it may want {wanted}{'' if settings.kafka_sasl_mechanism else ', or KAFKA_SASL_MECHANISM'}"


def _tls_sentence(settings: KafkastoreSettings, error: OSError) -> str:
    match error:
        case ssl.SSLCertVerificationError() if error.verify_code in _OTHER_NAME:
            return (
                f"has a certificate for another name ({error.verify_message}): mend KAFKA_URL, "
                "or set KAFKA_SSL_CHECK_HOSTNAME=0 where only the authority counts (Heroku)"
            )
        case ssl.SSLCertVerificationError():
            trusted = "KAFKA_TRUSTED_CERT" if settings.kafka_trusted_cert else "an authority of this machine"
            return (
                f"has a certificate that {trusted} did not sign ({error.verify_message}): "
                "set KAFKA_TRUSTED_CERT to its authority's"
            )
        case ssl.SSLError() if "ALERT" in (error.reason or ""):
            return (
                f"refuses our certificate ({error.reason}): mend KAFKA_CLIENT_CERT and KAFKA_CLIENT_CERT_KEY"
            )
        case _:
            return "speaks no TLS: mend KAFKA_URL, kafka:// is the scheme without it"
