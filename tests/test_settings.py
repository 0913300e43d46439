"""Variables are read once, and what is wrong with one is said with its name and the cure."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from honcho.environ import parse

from collector.settings import CollectorSettings
from kafkastore.settings import KafkastoreSettings
from process.settings import SettingsError, read_settings

ROOT = Path(__file__).parent.parent


def test_nothing_set_is_the_defaults_and_an_empty_variable_counts_as_unset():
    assert read_settings(CollectorSettings, {}) == read_settings(
        CollectorSettings, {"PORT": "", "TRUSTED_PROXIES": ""}
    )
    assert read_settings(CollectorSettings, {}).port == 8080


@pytest.mark.parametrize(
    ("model", "variable", "value", "wanted"),
    [
        (CollectorSettings, "PORT", "http", "the TCP port to listen on, 0 to 65535"),
        (CollectorSettings, "PORT", "70000", "0 to 65535"),
        (CollectorSettings, "WEB_CONCURRENCY", "0", "1 to 256"),
        (CollectorSettings, "TRUSTED_PROXIES", "10.0.0.0/33", "networks of proxies in front"),
        (CollectorSettings, "NOT_FOUND_URL", "javascript:alert(1)", "this is no http:// or https:// URL"),
        (
            CollectorSettings,
            "ERROR_PAGE_URL",
            "https://a.example/\r\nX: y",
            "this is no http:// or https:// URL",
        ),
        (CollectorSettings, "LOG_LEVEL", "loud", "debug, info, warning or error"),
        (CollectorSettings, "REDIS_URL", "garbage", "this is no redis:// or rediss:// URL"),
        (CollectorSettings, "REDIS_URL", "http://x", "this is no redis:// or rediss:// URL"),
        (KafkastoreSettings, "REDIS_URL", "redis://host:abc", "a redis:// or rediss:// URL"),
        (KafkastoreSettings, "REDIS_URL_CLICKSTORE_3", "x", "this is no redis:// or rediss:// URL"),
        (CollectorSettings, "DATABASE_URL", "mysql://host/db", "this is no sqlite:///path"),
        (CollectorSettings, "DATABASE_URL", "sqlite:///", "this is no sqlite:///path"),
        (KafkastoreSettings, "KAFKA_URL", "localhost:9092", "this is no list of kafka://host:port"),
        (KafkastoreSettings, "KAFKA_PREFIX", "a b", "goes before every topic"),
        (KafkastoreSettings, "INAPP_TOPICS", "app,clicks", "`clicks` is a topic of ours"),
        (KafkastoreSettings, "INAPP_TOPICS", "x.dead", "`x.dead` is a topic of ours"),
        (KafkastoreSettings, "DELIVERY", "at_most_once", "exactly_once, or at_least_once"),
    ],
)
def test_a_value_that_does_not_parse_names_the_variable_and_what_was_wanted(model, variable, value, wanted):
    with pytest.raises(SettingsError) as error:
        read_settings(model, {variable: value})
    assert str(error.value).startswith(f"{variable.removesuffix('_3')} does not parse")
    assert wanted in str(error.value)


def test_every_wrong_variable_is_named_at_once():
    with pytest.raises(SettingsError) as error:
        read_settings(CollectorSettings, {"PORT": "x", "QUEUES": "0"})
    assert [line.partition(" ")[0] for line in str(error.value).splitlines()] == ["QUEUES", "PORT"]


def test_a_share_of_the_journal_that_is_too_small_is_refused():
    with pytest.raises(SettingsError, match="JOURNAL_MAX_BYTES: each of WEB_CONCURRENCY"):
        read_settings(CollectorSettings, {"JOURNAL_MAX_BYTES": "2000000", "WEB_CONCURRENCY": "4"})


def test_a_secret_comes_from_a_file_too_but_not_from_both(tmp_path):
    file = tmp_path / "secret"
    file.write_text("redis://:secret@one:1/0\n")
    assert read_settings(CollectorSettings, {"REDIS_URL_FILE": str(file)}).redis_urls == (
        "redis://:secret@one:1/0",
    )
    with pytest.raises(SettingsError, match="REDIS_URL and REDIS_URL_FILE are both set"):
        read_settings(CollectorSettings, {"REDIS_URL_FILE": str(file), "REDIS_URL": "redis://two:1"})
    with pytest.raises(SettingsError, match=r"REDIS_URL_FILE: .* cannot be read"):
        read_settings(CollectorSettings, {"REDIS_URL_FILE": str(tmp_path / "nothing")})


def test_a_secret_is_not_shown_where_settings_are():
    settings = read_settings(CollectorSettings, {"DATABASE_URL": "postgres://user:secret@host/db"})
    assert "secret@" not in f"{settings!r}{settings}"


def test_numbered_redis_come_first_in_the_order_of_their_numbers():
    environ = {
        "REDIS_URL": "redis://plain:1",
        "REDIS_TLS_URL": "rediss://tls:1",
        "REDIS_URL_CLICKSTORE_10": "redis://ten:1",
        "REDIS_URL_CLICKSTORE_2": "redis://two:1",
    }
    assert read_settings(CollectorSettings, environ).redis_urls == ("redis://two:1", "redis://ten:1")
    assert read_settings(KafkastoreSettings, environ).redis_urls == ("redis://two:1", "redis://ten:1")
    assert read_settings(CollectorSettings, dict(list(environ.items())[:2])).redis_urls == ("rediss://tls:1",)
    assert read_settings(CollectorSettings, dict(list(environ.items())[:1])).redis_urls == (
        "redis://plain:1",
    )


def test_kafka_url_names_several_brokers():
    settings = read_settings(KafkastoreSettings, {"KAFKA_URL": "kafka://a:9092, kafka://b:9093/"})
    assert settings.kafka_url == "a:9092,b:9093"


def test_a_command_says_what_is_wrong_in_a_sentence_and_exits_with_2():
    command = Path(sys.executable).with_name("collector")
    done = subprocess.run(
        [command, "serve"],
        env=os.environ | {"PORT": "x"},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("PORT does not parse")
    assert "Traceback" not in done.stderr


def test_the_documents_say_what_the_code_says():
    subprocess.run([sys.executable, ROOT / "bin" / "variables", "--check"], check=True, timeout=60)


def test_dotenv_keeps_what_was_set_makes_up_secrets_and_writes_pems_as_one_line(tmp_path):
    shutil.copy(ROOT / "app.json", tmp_path)
    pem = "-----BEGIN CERTIFICATE-----\nAAA=\n-----END CERTIFICATE-----\n"

    def written(**environ):
        subprocess.run(
            [sys.executable, ROOT / "bin" / "dotenv", tmp_path], check=True, timeout=60, env=environ
        )
        return parse((tmp_path / ".env").read_text("utf-8"))

    first = written(TLS_CERT=pem, NOT_FOUND_URL="https://example.com/#a b'c", HOME="/nowhere")
    assert len(first["API_SECRET_KEY"]) == 64
    assert (first["TLS_CERT"], first["NOT_FOUND_URL"]) == (pem.strip(), "https://example.com/#a b'c")
    assert set(first) == {"API_SECRET_KEY", "TLS_CERT", "NOT_FOUND_URL"}
    with (tmp_path / ".env").open("a") as file:
        file.write("REDIS_URL=redis://example.com/1\n")
    before = (tmp_path / ".env").read_bytes()
    assert written() == {**first, "REDIS_URL": "redis://example.com/1"}
    assert (tmp_path / ".env.bak").read_bytes() == before
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0
