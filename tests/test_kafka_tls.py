"""TLS and passwords towards Kafka: what is right gets in everywhere, what is wrong is a sentence with the cure."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trustme
from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from kafka_reader import values

from collector.queue import CLICK_QUEUE, QueueKeys
from embedded.apache_kafka import Listener, running_apache_kafka
from embedded.kafka import KafkaServer
from embedded.ports import free_ports
from embedded.server import ServerUnavailable
from geoip.place import NOWHERE
from kafkastore.connection import PublishError
from kafkastore.findings import findings
from kafkastore.pipeline import Pipeline
from kafkastore.queue import Queue
from kafkastore.settings import KafkastoreSettings
from kafkastore.tail import tail
from kafkastore.topics import ensure_topics
from process.settings import SettingsError, read_settings

NAME, PASSWORD = "onward", "correct horse"
LOGIN = "org.apache.kafka.common.security"


@dataclass
class Guarded:
    """A broker that wants certificates on one port and passwords on another."""

    server: KafkaServer
    tls: str
    sasl: str
    authority: str
    certificate: str
    key: str


@pytest.fixture(scope="module")
def guarded(tmp_path_factory) -> Iterator[Guarded]:
    directory = tmp_path_factory.mktemp("guarded-kafka")
    authority = trustme.CA()
    ours = authority.issue_cert("onward.example")
    (directory / "broker.pem").write_text(_pem_store(authority.issue_cert("kafka.example")))
    authority.cert_pem.write_to_path(directory / "authority.pem")
    tls_port, sasl_port = free_ports(2)
    properties = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(directory / "broker.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(directory / "authority.pem"),
        "listener.name.ssl.ssl.client.auth": "required",
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256",
        "listener.name.sasl_ssl.plain.sasl.jaas.config": (
            f'{LOGIN}.plain.PlainLoginModule required user_{NAME}="{PASSWORD}";'
        ),
        "listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config": f"{LOGIN}.scram.ScramLoginModule required;",
    }
    listeners = (Listener("SSL", tls_port), Listener("SASL_SSL", sasl_port))
    try:
        with running_apache_kafka(directory, properties=properties, listeners=listeners) as server:
            credentials = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096)
            change = UserScramCredentialUpsertion(NAME, credentials, PASSWORD.encode())
            admin = AdminClient({"bootstrap.servers": server.bootstrap})
            for done in admin.alter_user_scram_credentials([change]).values():
                done.result(timeout=10)
            yield Guarded(
                server,
                f"kafka+ssl://127.0.0.1:{tls_port}",
                f"kafka+ssl://127.0.0.1:{sasl_port}",
                authority.cert_pem.bytes().decode(),
                "".join(one.bytes().decode() for one in ours.cert_chain_pems),
                ours.private_key_pem.bytes().decode(),
            )
    except ServerUnavailable as error:
        cannot = pytest.fail if os.environ.get("CI") else pytest.skip
        cannot(str(error))


def _pem_store(certificate):
    key = load_pem_private_key(certificate.private_key_pem.bytes(), None)
    pkcs8 = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return b"".join([pkcs8, *(one.bytes() for one in certificate.cert_chain_pems)]).decode()


@pytest.fixture
def environ(guarded, topic_prefix):
    """As on Heroku: the authority counts, not the name."""
    return {
        "KAFKA_URL": guarded.tls,
        "KAFKA_PREFIX": topic_prefix,
        "KAFKA_PARTITIONS": "1",
        "KAFKA_TRUSTED_CERT": guarded.authority,
        "KAFKA_CLIENT_CERT": guarded.certificate,
        "KAFKA_CLIENT_CERT_KEY": guarded.key,
        "KAFKA_SSL_CHECK_HOSTNAME": "0",
    }


@pytest.fixture
def sasl_environ(guarded, topic_prefix):
    return {
        "KAFKA_URL": guarded.sasl,
        "KAFKA_PREFIX": topic_prefix,
        "KAFKA_PARTITIONS": "1",
        "KAFKA_TRUSTED_CERT": guarded.authority,
        "KAFKA_SSL_CHECK_HOSTNAME": "0",
        "KAFKA_SASL_MECHANISM": "SCRAM-SHA-256",
        "KAFKA_SASL_USERNAME": NAME,
        "KAFKA_SASL_PASSWORD": PASSWORD,
    }


async def walk(redis, guarded, environ):
    """Move an event to Kafka, follow it there, and check: every kind of client connects."""
    settings = read_settings(KafkastoreSettings, environ)
    await redis.rpush(CLICK_QUEUE, b"203.0.113.42 1769860800 clicks /t/click campaign_link_id=7 iPhone")
    pipeline = Pipeline(settings, lambda _address: NOWHERE, until_empty=True)
    async with asyncio.timeout(60):
        await pipeline.run([Queue(redis, QueueKeys(CLICK_QUEUE))], asyncio.Event())
    assert len(values(guarded.server.bootstrap, settings.kafka_prefix + "clicks")) == 1
    async with asyncio.timeout(20), _followed(settings) as stored:
        assert (await anext(stored)).value["link_id"] == 7
    assert not [one.text for one in await findings(settings) if one.fatal and "Redis" not in one.text]


@asynccontextmanager
async def _followed(settings):
    stored = tail(settings, ["clicks"], asyncio.Event(), from_beginning=True)
    yield stored
    await stored.aclose()


@pytest.mark.parametrize("form", ["text", "one line", "path", "file variable"])
async def test_certificates_open_the_way_in_every_form(redis, guarded, environ, tmp_path, form):
    for name in ("KAFKA_TRUSTED_CERT", "KAFKA_CLIENT_CERT", "KAFKA_CLIENT_CERT_KEY"):
        text = environ[name]
        file = tmp_path / name
        file.write_text(text)
        if form == "one line":
            environ[name] = text.replace("\n", "\\n")
        elif form == "path":
            environ[name] = str(file)
        elif form == "file variable":
            del environ[name]
            environ[f"{name}_FILE"] = str(file)
    if form == "text":
        await walk(redis, guarded, environ)
    else:
        await ensure_topics(read_settings(KafkastoreSettings, environ))


@pytest.mark.parametrize("mechanism", ["PLAIN", "scram-sha-256"])
async def test_a_name_and_a_password_open_the_way(redis, guarded, sasl_environ, mechanism):
    await walk(redis, guarded, sasl_environ | {"KAFKA_SASL_MECHANISM": mechanism})


def other_authority():
    return trustme.CA().cert_pem.bytes().decode()


def other_certificate():
    stranger = trustme.CA().issue_cert("onward.example")
    return {
        "KAFKA_CLIENT_CERT": "".join(one.bytes().decode() for one in stranger.cert_chain_pems),
        "KAFKA_CLIENT_CERT_KEY": stranger.private_key_pem.bytes().decode(),
    }


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"KAFKA_TRUSTED_CERT": other_authority()}, "KAFKA_TRUSTED_CERT did not sign"),
        ({"KAFKA_TRUSTED_CERT": None}, "an authority of this machine did not sign"),
        ({"KAFKA_TRUSTED_CERT": "-----BEGIN nonsense"}, "KAFKA_TRUSTED_CERT is no PEM certificate"),
        ({"KAFKA_TRUSTED_CERT": "/nowhere.pem"}, "KAFKA_TRUSTED_CERT is neither PEM text nor a file"),
        ({"KAFKA_SSL_CHECK_HOSTNAME": "1"}, "KAFKA_SSL_CHECK_HOSTNAME=0"),
        ({"KAFKA_CLIENT_CERT": None, "KAFKA_CLIENT_CERT_KEY": None}, "may want KAFKA_CLIENT_CERT"),
        (other_certificate(), "KAFKA_CLIENT_CERT"),
        (
            {"KAFKA_CLIENT_CERT_KEY": other_certificate()["KAFKA_CLIENT_CERT_KEY"]},
            "KAFKA_CLIENT_CERT and KAFKA_CLIENT_CERT_KEY are no PEM pair",
        ),
    ],
)
async def test_what_is_wrong_with_certificates_is_a_sentence(environ, changed, said):
    await fails(environ | changed, said)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"KAFKA_SASL_PASSWORD": "wrong"}, "mend KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"),
        ({"KAFKA_SASL_USERNAME": "stranger"}, "mend KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"),
        ({"KAFKA_SASL_MECHANISM": "SCRAM-SHA-512"}, "does not offer SCRAM-SHA-512"),
        (
            {"KAFKA_SASL_MECHANISM": None, "KAFKA_SASL_USERNAME": None, "KAFKA_SASL_PASSWORD": None},
            "KAFKA_SASL_MECHANISM",
        ),
    ],
)
async def test_what_is_wrong_with_a_password_is_a_sentence(sasl_environ, changed, said):
    await fails(sasl_environ | changed, said)
    if changed.get("KAFKA_SASL_PASSWORD"):
        await fails(sasl_environ | changed | {"KAFKA_SASL_MECHANISM": "PLAIN"}, said)


async def test_a_port_that_speaks_tls_and_one_that_does_not_are_told_apart(guarded, topic_prefix):
    await fails({"KAFKA_URL": guarded.tls.replace("+ssl", "")}, r"may want kafka\+ssl://")
    await fails({"KAFKA_URL": guarded.server.url.replace("kafka:", "kafka+ssl:")}, "speaks no TLS")


async def fails(environ, said):
    settings = read_settings(KafkastoreSettings, {name: value for name, value in environ.items() if value})
    async with asyncio.timeout(30):
        with pytest.raises(PublishError, match=said) as error:
            await ensure_topics(settings)
    assert PASSWORD not in str(error.value)


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"KAFKA_URL": "kafka://a:1,kafka+ssl://b:1"}, r"mixes kafka:// and kafka\+ssl://"),
        ({"KAFKA_URL": "kafka+ssl://a:1", "KAFKA_CLIENT_CERT": "x"}, "belong together: set both"),
        ({"KAFKA_URL": "kafka://a:1", "KAFKA_TRUSTED_CERT": "x"}, r"write kafka\+ssl://"),
        ({"KAFKA_SASL_USERNAME": "x"}, "set all three or none"),
        ({"KAFKA_SASL_MECHANISM": "GSSAPI"}, "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(environ, said):
    with pytest.raises(SettingsError, match=said):
        read_settings(KafkastoreSettings, environ)
