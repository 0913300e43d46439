"""What a client with TLS meets: real collectors, certificates of an authority made for the test, real handshakes."""

import contextlib
import http.client
import os
import shutil
import socket
import ssl
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from hypothesis import given
from hypothesis import strategies as st
from processes import SCRIPTS, running

from collector.certificates import look, news
from collector.plain_http import https_url
from embedded.ports import free_port, free_ports

LINK = '{"id": 1, "target_url": {"default": "https://web.example/"}}\n'


@pytest.fixture(scope="session")
def authority():
    return trustme.CA()


@pytest.fixture(scope="session")
def trusting(authority):
    """Give a client's context that trusts the authority, and looks at names too."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def pems(certificate):
    """Give chain and key as texts."""
    chain = b"".join(pem.bytes() for pem in certificate.cert_chain_pems)
    return chain.decode(), certificate.private_key_pem.bytes().decode()


def install(directory, certificate):
    """Write a certificate where TLS_DIR has it."""
    directory.mkdir(parents=True, exist_ok=True)
    chain, key = pems(certificate)
    (directory / "fullchain.pem").write_text(chain)
    (directory / "privkey.pem").write_text(key)


@contextlib.contextmanager
def collecting(directory, redis_server, *, processes=1, **environ):
    """Run a collector with TLS; yields its Child and the port."""
    environ = {"PORT": free_port(), "HOST": "127.0.0.1", "WEB_CONCURRENCY": processes} | environ
    environ |= {
        "REDIS_URL": redis_server.url,
        "DATABASE_URL": f"sqlite:///{directory}/onward.db",
        "JOURNAL_DIR": directory / "journal",
        "TZ": "UTC",
    }

    def started(child):
        return child.program.log.read_text("utf-8").count('"collector_started"') == processes

    with running(directory, "collector", "serve", answers=started, **environ) as child:
        yield child, environ["PORT"]


def shake_hands(port, context, name, session=None):
    """Connect and give the TLS connection; `name` None sends none."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    try:
        return context.wrap_socket(connection, server_hostname=name, session=session)
    except BaseException:
        connection.close()
        raise


def unchecked(**versions):
    """Give a client's context that takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    for bound, version in versions.items():
        setattr(context, bound, version)
    return context


def serial(port, name):
    """Give the serial number of the certificate that a new connection meets."""
    context = unchecked()
    with shake_hands(port, context, name) as connection:
        return serial_of(connection.getpeercert(binary_form=True))


def serial_of(der):
    return x509.load_der_x509_certificate(der).serial_number


def serial_in(certificate):
    return x509.load_pem_x509_certificate(certificate.cert_chain_pems[0].bytes()).serial_number


def wait_for(holds):
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ask(connection, path="/healthz", method="GET"):
    """Ask on a connection that stays open; gives the answer, read."""
    connection.request(method, path)
    answer = connection.getresponse()
    answer.read()
    return answer


def https(port, context, name):
    """Give an http.client connection through a handshake of ours."""
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=30)
    connection.sock = shake_hands(port, context, name)
    return connection


def count(child, event):
    return child.program.log.read_text("utf-8").count(f'"{event}"')


@pytest.fixture(scope="module")
def names(authority):
    return {
        name: authority.issue_cert(name)
        for name in ("a.example", "b.example", "*.wild.example", "other.example")
    }


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory, redis_server, names):
    """Run two processes with two names, a wildcard, a certificate for other names, HTTP_PORT and ACME."""
    directory = tmp_path_factory.mktemp("tls")
    for name in ("a.example", "b.example", "*.wild.example"):
        install(directory / "tls" / name, names[name])
    (directory / "tls" / "README").write_text("no folder")
    (directory / "tls" / "empty.example").mkdir()
    (directory / "acme" / ".well-known" / "acme-challenge").mkdir(parents=True)
    (directory / "acme" / "direct_-1").write_text("direct.thumbprint")
    (directory / "acme" / ".well-known" / "acme-challenge" / "webroot").write_text("webroot.thumbprint")
    (directory / "secret").write_text("secret")
    (directory / "links.jsonl").write_text(LINK)
    subprocess.run(
        [SCRIPTS / "collector", "links", "import", directory / "links.jsonl"],
        env={"DATABASE_URL": f"sqlite:///{directory}/onward.db"},
        check=True,
        timeout=60,
    )
    chain, key = pems(names["other.example"])
    port, http_port = free_ports(2)
    with collecting(
        directory,
        redis_server,
        processes=2,
        PORT=port,
        TLS_DIR=directory / "tls",
        TLS_CERT=chain.replace("\n", "\\n"),
        TLS_KEY=key,
        HTTP_PORT=http_port,
        ACME_DIR=directory / "acme",
        HSTS_SECONDS=3600,
    ) as (child, _):
        yield child, port, http_port


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("asked", "got"),
    [
        ("a.example", "a.example"),
        ("b.example", "b.example"),
        ("A.Example", "a.example"),
        ("x.wild.example", "*.wild.example"),
        ("wild.example", "other.example"),
        ("x.y.wild.example", "other.example"),
        ("x.a.example", "other.example"),
        ("empty.example", "other.example"),
        (None, "other.example"),
    ],
)
def test_the_name_asked_for_chooses_the_certificate(endpoint, names, asked, got, version):
    _, port, _ = endpoint
    context = unchecked(minimum_version=version, maximum_version=version)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with shake_hands(port, context, asked) as connection:
        assert serial_of(connection.getpeercert(binary_form=True)) == serial_in(names[got])
        assert connection.version() == version.name.replace("_", ".")
        assert connection.selected_alpn_protocol() == "http/1.1"


def strange_hello(name):
    """Give the first bytes of a client that asks for any bytes as a name."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = unchecked().wrap_bio(to_client, to_server, server_hostname="x" * len(name))
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return to_server.read().replace(b"x" * len(name), name)


def answer_of(port, sent):
    """Send bytes and give what comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(sent)
        with contextlib.suppress(ConnectionResetError):
            return connection.recv(4096)
        return b""


def test_a_visitor_is_redirected_as_ever_and_every_answer_carries_hsts(endpoint, trusting):
    _, port, _ = endpoint
    connection = https(port, trusting, "a.example")
    answer = ask(connection, "/click/1/go")
    assert (answer.status, answer.headers["Location"]) == (307, "https://web.example/")
    for path, method in (("/click/1/go", "GET"), ("/nothing/here", "GET"), ("/click/1/go", "POST")):
        assert ask(connection, path, method).headers["Strict-Transport-Security"] == "max-age=3600"
    connection.close()


def test_a_session_begun_with_one_process_goes_on_with_any(endpoint):
    _, port, _ = endpoint
    context = unchecked()
    connection = https(port, context, "a.example")
    ask(connection)  # the tickets come with the first answer
    session = connection.sock.session
    connection.close()
    for _ in range(10):
        with shake_hands(port, context, "a.example", session) as again:
            assert again.session_reused


def test_old_versions_and_plain_http_are_refused_on_the_tls_port(endpoint):
    _, port, _ = endpoint
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        old = unchecked(minimum_version=ssl.TLSVersion.TLSv1, maximum_version=ssl.TLSVersion.TLSv1_1)
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        shake_hands(port, old, "a.example")
    assert not answer_of(port, b"GET /click/1/go HTTP/1.1\r\nHost: a.example\r\n\r\n").startswith(b"HTTP")


def test_a_name_that_is_no_text_ends_its_handshake_and_says_nothing_in_the_log(endpoint):
    child, port, _ = endpoint
    assert answer_of(port, strange_hello(b"\xff\xfe\r\nx.example"))[:1] in {b"", b"\x15"}
    assert serial(port, "a.example")
    assert "Traceback" not in child.program.log.read_text("utf-8")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
def test_openssl_finds_the_chain_whole(endpoint, authority, tmp_path):
    _, port, _ = endpoint
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    done = subprocess.run(
        [
            *("openssl", "s_client", "-brief", "-connect", f"127.0.0.1:{port}", "-servername", "b.example"),
            *("-CAfile", tmp_path / "ca.pem", "-verify_return_error", "-verify_hostname", "b.example"),
        ],
        input="",
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Verification: OK" in done.stderr


@pytest.fixture
def live(tmp_path, redis_server, authority):
    """Run two processes with TLS_DIR alone, for tests that change what is in it."""
    install(tmp_path / "tls" / "a.example", authority.issue_cert("a.example"))
    install(tmp_path / "tls" / "b.example", authority.issue_cert("b.example"))
    with collecting(tmp_path, redis_server, processes=2, TLS_DIR=tmp_path / "tls") as (child, port):
        yield child, port, tmp_path / "tls"


def test_a_new_certificate_is_served_and_connections_that_live_go_on(live, authority, trusting):
    child, port, directory = live
    before = https(port, trusting, "a.example")
    first = serial_of(before.sock.getpeercert(binary_form=True))
    assert ask(before).status == 200
    new = authority.issue_cert("a.example")
    install(directory / "a.example", new)
    wait_for(lambda: count(child, "certificate_reloaded") == 2)
    # Whichever process takes them, all new connections meet it, and only that name's changed.
    assert {serial(port, "a.example") for _ in range(20)} == {serial_in(new)} != {first}
    assert serial_of(before.sock.getpeercert(binary_form=True)) == first
    assert [ask(before).status for _ in range(3)] == [200] * 3
    before.close()
    assert count(child, "certificate_refused") == 0


def test_links_that_are_exchanged_are_followed(tmp_path, redis_server, authority):
    """As Kubernetes does: the files are links into a folder that is itself a link, and that one is exchanged."""
    old, new = authority.issue_cert("a.example"), authority.issue_cert("a.example")
    folder = tmp_path / "tls" / "a.example"
    install(folder / "..1", old)
    install(folder / "..2", new)
    (folder / "..data").symlink_to("..1")
    for name in ("fullchain.pem", "privkey.pem"):
        (folder / name).symlink_to(f"..data/{name}")
    with collecting(tmp_path, redis_server, TLS_DIR=tmp_path / "tls") as (child, port):
        assert serial(port, None) == serial_in(old)
        (folder / "..next").symlink_to("..2")
        (folder / "..next").rename(folder / "..data")
        wait_for(lambda: serial(port, None) == serial_in(new))
        assert (count(child, "certificate_reloaded"), count(child, "certificate_refused")) == (1, 0)


def test_files_of_tls_cert_are_followed_too(tmp_path, redis_server, authority):
    old, new = authority.issue_cert("a.example"), authority.issue_cert("a.example")
    install(tmp_path / "pair", old)
    chain, key = tmp_path / "pair" / "fullchain.pem", tmp_path / "pair" / "privkey.pem"
    with collecting(tmp_path, redis_server, TLS_CERT=chain, TLS_KEY=key) as (_, port):
        assert serial(port, "any.example") == serial_in(old)
        install(tmp_path / "pair", new)
        wait_for(lambda: serial(port, "any.example") == serial_in(new))


def cut_off(chain, key):
    return chain[: len(chain) // 3], key


def cut_off_in_the_chain(chain, key):
    return chain + chain[: len(chain) // 3], key


BROKEN = {
    "half a certificate": (cut_off, "there is no whole PEM certificate in it"),
    "half a chain": (cut_off_in_the_chain, "it ends in the middle"),
    "half a key": (lambda chain, key: (chain, key[: len(key) // 2]), "it ends in the middle"),
    "empty": (lambda _chain, key: ("", key), "there is no whole PEM certificate in it"),
    "no key": (lambda chain, _key: (chain, chain), "there is no PEM private key in it"),
    "nonsense": (lambda chain, key: (chain.replace("M", "A"), key), "OpenSSL cannot read it"),
    "no file": (lambda chain, _key: (chain, None), "its key file cannot be read: No such file or directory"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_certificate_is_refused_said_once_and_the_old_one_kept(live, authority, case):
    child, port, directory = live
    old = serial(port, "a.example")
    breaking, reason = BROKEN[case]
    chain, key = breaking(*pems(authority.issue_cert("a.example")))
    (directory / "a.example" / "fullchain.pem").write_text(chain)
    if key is None:
        (directory / "a.example" / "privkey.pem").unlink()
    else:
        (directory / "a.example" / "privkey.pem").write_text(key)
    wait_for(lambda: count(child, "certificate_refused") == 2)  # by each process
    assert serial(port, "a.example") == old
    # Later looks say nothing more: they have happened when another change is seen.
    install(directory / "b.example", authority.issue_cert("b.example"))
    wait_for(lambda: count(child, "certificate_reloaded") == 2)
    assert count(child, "certificate_refused") == 2
    assert child.program.log.read_text("utf-8").count(reason) == 2
    # And it is mended without a restart.
    mended = authority.issue_cert("a.example")
    install(directory / "a.example", mended)
    wait_for(lambda: serial(port, "a.example") == serial_in(mended))


def test_a_pair_that_is_just_being_written_is_no_news(tmp_path, authority):
    """Certificate and key are two files: between the two writes they do not fit, and nobody shall be woken."""
    old, new = authority.issue_cert("a.example"), authority.issue_cert("a.example")
    install(tmp_path / "a.example", old)
    now = datetime.now(UTC)
    first = look(None, tmp_path, {})
    (tmp_path / "a.example" / "fullchain.pem").write_text(pems(new)[0])
    second = look(None, tmp_path, first)
    assert second["a.example"].certificate is first["a.example"].certificate
    assert list(news(first, second, now)) == []
    third = look(None, tmp_path, second)  # nobody writes any more: so it is broken
    assert [line.event for line in news(second, third, now)] == ["certificate_refused"]
    fourth = look(None, tmp_path, third)
    assert list(news(third, fourth, now)) == []
    (tmp_path / "a.example" / "privkey.pem").write_text(pems(new)[1])
    fifth = look(None, tmp_path, fourth)
    assert [line.event for line in news(fourth, fifth, now)] == ["certificate_reloaded"]


@pytest.mark.parametrize("kind", list(trustme.KeyType))
def test_a_key_of_another_certificate_is_refused(live, authority, kind):
    child, port, directory = live
    old = serial(port, "a.example")
    key = pems(authority.issue_cert("a.example", key_type=kind))[1]
    (directory / "a.example" / "privkey.pem").write_text(key)
    wait_for(lambda: count(child, "certificate_refused") == 2)
    assert serial(port, "a.example") == old
    assert "the key is not this certificate's" in child.program.log.read_text("utf-8")


def test_an_expired_certificate_is_served_with_a_warning(live, authority):
    child, port, directory = live
    expired = authority.issue_cert("a.example", not_after=datetime.now(UTC) - timedelta(days=1))
    install(directory / "a.example", expired)
    wait_for(lambda: count(child, "certificate_expired") == 2)
    assert serial(port, "a.example") == serial_in(expired)


def test_folders_that_appear_are_served_and_those_that_go_are_not(live, authority):
    child, port, directory = live
    first = serial(port, None)
    assert serial(port, "c.example") == first  # the first by name is for all others
    new = authority.issue_cert("c.example")
    install(directory / "c.example", new)
    wait_for(lambda: count(child, "certificate_loaded") == 4)  # two at the start, one by each process
    assert serial(port, "c.example") == serial_in(new)
    shutil.rmtree(directory / "c.example")
    wait_for(lambda: count(child, "certificate_removed") == 2)
    assert serial(port, "c.example") == first


def test_a_disk_that_goes_away_takes_no_certificate_with_it(live):
    child, port, directory = live
    old = serial(port, "b.example")
    directory.rename(directory.with_name("away"))
    wait_for(lambda: count(child, "certificates_kept") == 2)
    directory.mkdir()
    wait_for(lambda: "no certificate is left" in child.program.log.read_text("utf-8"))
    assert serial(port, "b.example") == old


def test_one_broken_name_at_the_start_does_not_stop_the_others(tmp_path, redis_server, authority):
    good = authority.issue_cert("b.example")
    install(tmp_path / "tls" / "b.example", good)
    install(tmp_path / "tls" / "a.example", authority.issue_cert("a.example"))
    (tmp_path / "tls" / "a.example" / "privkey.pem").write_text("")
    with collecting(tmp_path, redis_server, TLS_DIR=tmp_path / "tls") as (child, port):
        assert count(child, "certificate_refused") == 1
        assert serial(port, "a.example") == serial_in(good)


def test_the_first_certificate_is_obtained_through_http_port(tmp_path, redis_server, authority):
    """Nobody has a certificate before its authority was answered."""
    (tmp_path / "tls").mkdir()
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme" / "token").write_text("token.thumbprint")
    port, http_port = free_ports(2)
    with collecting(
        tmp_path,
        redis_server,
        PORT=port,
        HTTP_PORT=http_port,
        TLS_DIR=tmp_path / "tls",
        ACME_DIR=tmp_path / "acme",
    ) as (child, _):
        assert count(child, "no_certificate") == 1
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            shake_hands(port, unchecked(), "a.example")
        assert plainly(http_port, "/.well-known/acme-challenge/token")[2] == b"token.thumbprint"
        first = authority.issue_cert("a.example")
        install(tmp_path / "tls" / "a.example", first)
        wait_for(lambda: count(child, "certificate_loaded") == 1)
        assert serial(port, "a.example") == serial_in(first)


def plainly(port, path, method="GET", **headers):
    """Ask without TLS; gives status, headers and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.putrequest(method, path, skip_host="Host" in headers, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize("token", ["direct_-1", "webroot"])
def test_a_challenge_is_answered_from_the_folder_and_from_certbots_place_in_it(endpoint, token):
    _, _, http_port = endpoint
    status, headers, body = plainly(http_port, f"/.well-known/acme-challenge/{token}")
    assert (status, headers.get_content_type()) == (200, "text/plain")
    assert body.partition(b".")[2] == b"thumbprint"
    assert "Strict-Transport-Security" not in headers  # without TLS it means nothing (RFC 6797, 7.2)


@pytest.mark.parametrize(
    "token",
    ["", "nothing", "../secret", "..%2fsecret", "direct_-1/", "direct_-1%00", ".well-known", "x" * 3000],
)
def test_no_other_file_is_a_challenge(endpoint, token):
    _, _, http_port = endpoint
    status, headers, body = plainly(http_port, f"/.well-known/acme-challenge/{token}")
    assert (status, headers["X-Onward"], body) == (404, "no-such-challenge", b"")
    assert plainly(http_port, f"/.well-known/acme-challenge/{token}", "POST")[0] == 405


def test_everything_else_goes_to_https_for_good_because_of_hsts(endpoint):
    _, port, http_port = endpoint
    for method in ("GET", "HEAD", "POST", "DELETE"):
        status, headers, body = plainly(http_port, "/click/1/go?a=%2F&b=//x#", method, Host="a.example:8080")
        assert (status, body) == (308, b"")
        assert headers["Location"] == f"https://a.example:{port}/click/1/go?a=%2F&b=//x#"
        assert (headers["Server"], headers["Cache-Control"]) == ("onward", "no-store")


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: evil.example/x\r\n",
        b"GET / HTTP/1.1\r\nHost: user@evil.example\r\n",
        b"GET / HTTP/1.1\r\nHost: a.example\r\nHost: evil.example\r\n",
        b"GET / HTTP/1.1\r\nHost: \r\n",
        b"GET / HTTP/1.1\r\nHost: a\xc3\xa4.example\r\n",
        b"GET / HTTP/1.0\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: a.example\r\n",
        b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example\r\n",
    ],
)
def test_a_forged_host_or_target_is_refused(endpoint, head):
    _, _, http_port = endpoint
    answer = answer_of(http_port, head + b"Connection: close\r\n\r\n")
    assert answer.split(b" ", 2)[1] == b"400"
    assert b"Location" not in answer
    assert b"evil" not in answer


def test_it_is_307_without_hsts(tmp_path, redis_server, authority):
    chain, key = pems(authority.issue_cert("a.example"))
    port, http_port = free_ports(2)
    with collecting(tmp_path, redis_server, PORT=port, HTTP_PORT=http_port, TLS_CERT=chain, TLS_KEY=key) as (
        _,
        _,
    ):
        status, headers, _ = plainly(http_port, "/winter", Host="a.example")
        assert (status, headers["Location"]) == (307, f"https://a.example:{port}/winter")
        connection = https(port, unchecked(), "a.example")
        assert "Strict-Transport-Security" not in ask(connection).headers
        connection.close()


HTTPS_URLS = yaml.safe_load((Path(__file__).parent / "data" / "https_urls.yml").read_text("utf-8"))


@pytest.mark.parametrize("case", HTTPS_URLS, ids=str)
def test_the_https_url_of_a_request(case):
    assert https_url(case["hosts"], case["target"], case.get("port", 443)) == case["url"]


@given(st.lists(st.text(max_size=30), max_size=2), st.text(max_size=30), st.integers(1, 65535))
def test_no_request_leads_elsewhere_or_into_a_header(hosts, path, port):
    url = https_url(hosts, "/" + path, port)
    if url is not None:
        parts = urlsplit(url)
        asked = urlsplit(f"//{hosts[0]}")
        assert (parts.scheme, parts.hostname, parts.port or 443) == ("https", asked.hostname, port)
        assert url.isascii()
        assert url.isprintable()
        assert "@" not in parts.netloc
        assert url.endswith("/" + path)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(
    ("prepare", "code", "sentence"),
    [
        (
            lambda _: {"TLS_CERT": "/nothing"},
            2,
            "TLS_CERT and TLS_KEY belong together: set both of them, or none.",
        ),
        (lambda _: {"HTTP_PORT": 8081}, 2, "HTTP_PORT needs TLS here: set TLS_CERT and TLS_KEY, or TLS_DIR."),
        (
            lambda _: {"HSTS_SECONDS": 60},
            2,
            "HSTS_SECONDS needs TLS here: set TLS_CERT and TLS_KEY, or TLS_DIR.",
        ),
        (
            lambda make: make(mixed=True),
            1,
            "TLS_CERT and TLS_KEY cannot be used (the key is not this certificate's): mend them.",
        ),
        (
            lambda make: make() | {"TLS_KEY": "/no/file"},
            1,
            (
                "TLS_CERT and TLS_KEY cannot be used "
                "(its key file cannot be read: No such file or directory): mend them."
            ),
        ),
        (
            lambda make: make(password=b"secret"),
            1,
            "TLS_CERT and TLS_KEY cannot be used (the key is encrypted: give it without a password): mend them.",
        ),
        (
            lambda _: {"TLS_DIR": "/no/folder"},
            1,
            "TLS_DIR cannot be read (No such file or directory): mend it, or unset it.",
        ),
        (
            lambda _: {"TLS_DIR": Path(__file__).parent},
            1,
            (
                "TLS_DIR has no <host>/fullchain.pem with its privkey.pem: put one there, "
                "or set HTTP_PORT and ACME_DIR to obtain the first one."
            ),
        ),
    ],
    ids=range(8),
)
def test_what_cannot_be_served_stops_the_start_with_one_sentence(
    tmp_path, authority, prepare, code, sentence, processes
):
    def make(*, mixed=False, password=None):
        one, other = authority.issue_cert("a.example"), authority.issue_cert("a.example")
        chain, key = pems(one)[0], pems(other if mixed else one)[1]
        if password:
            key = (
                load_pem_private_key(key.encode(), None)
                .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password))
                .decode()
            )
        return {"TLS_CERT": chain, "TLS_KEY": key}

    environ = {"PORT": free_port(), "HOST": "127.0.0.1", "WEB_CONCURRENCY": processes, **prepare(make)}
    done = subprocess.run(
        [SCRIPTS / "collector", "serve"],
        env={**os.environ, **{name: str(value) for name, value in environ.items()}},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr.strip(), done.stdout) == (code, sentence, "")


@pytest.mark.parametrize("processes", [1, 2])
def test_it_stops_in_time_whatever_its_clients_do(tmp_path, redis_server, authority, trusting, processes):
    install(tmp_path / "tls" / "a.example", authority.issue_cert("a.example"))
    port, http_port = free_ports(2)
    with (
        collecting(
            tmp_path,
            redis_server,
            processes=processes,
            PORT=port,
            HTTP_PORT=http_port,
            TLS_DIR=tmp_path / "tls",
        ) as (child, _),
        socket.create_connection(("127.0.0.1", port)) as silent,
        socket.create_connection(("127.0.0.1", http_port)) as half,
    ):
        idle = https(port, trusting, "a.example")
        assert ask(idle).status == 200
        silent.sendall(strange_hello(b"a.example")[:20])  # never ends its handshake
        half.sendall(b"GET / HTTP/1.1\r\nHost: a.exa")
        child.ask_to_stop()
        assert child._process.wait(10) == 0
        idle.close()
        assert count(child, "collector_stopped") == processes
        assert "Traceback" not in child.program.log.read_text("utf-8")
