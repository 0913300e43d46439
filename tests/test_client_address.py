"""Whose address a request came from: strangers cannot say, trusted proxies can."""

from ipaddress import IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.client_address import client_address
from collector.referer import kept_referer, referring_host


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "expected"),
    [
        ("", "203.0.113.1", ["198.51.100.1"], "203.0.113.1"),  # a stranger's header says nothing
        ("10.0.0.0/8", "203.0.113.1", ["198.51.100.1"], "203.0.113.1"),
        ("10.0.0.0/8", "10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.0/8", "10.0.0.1", ["6.6.6.6, 198.51.100.1"], "198.51.100.1"),  # what the client itself wrote
        ("10.0.0.0/8", "10.0.0.1", ["198.51.100.1, 10.0.0.2", "10.0.0.3"], "198.51.100.1"),
        ("10.0.0.0/8", "10.0.0.1", ["10.0.0.2, 10.0.0.3"], "10.0.0.2"),  # all trusted: the leftmost
        ("10.0.0.0/8", "10.0.0.1", [], "10.0.0.1"),  # none: the peer
        ("10.0.0.0/8,::1/128", "::1", ["[2001:DB8::1]:443"], "2001:db8::1"),
        ("10.0.0.0/8", "10.0.0.1", ["198.51.100.1:4711"], "198.51.100.1"),
        ("10.0.0.0/8", "::ffff:10.0.0.1", ["::ffff:198.51.100.1"], "198.51.100.1"),
        ("10.0.0.0/8", "10.0.0.1", ["unknown"], "0.0.0.0"),
        ("10.0.0.0/8", "10.0.0.1", ["' OR 1=1"], "0.0.0.0"),
        ("1", "10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("1", "10.0.0.1", ["6.6.6.6, 198.51.100.1"], "198.51.100.1"),
        ("2", "10.0.0.1", ["6.6.6.6, 198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        ("2", "10.0.0.1", ["198.51.100.1"], "198.51.100.1"),  # fewer than that: the leftmost
        ("1", "10.0.0.1", [], "10.0.0.1"),
        ("", "fe80::1%eth0", [], "fe80::1"),
        ("", None, [], "0.0.0.0"),
    ],
)
def test_the_address_is_the_clients(trusted, peer, forwarded, expected):
    assert client_address(trusted)(peer, forwarded) == expected


@given(st.ip_addresses())
def test_every_address_is_read_and_written_as_ipaddress_does(address):
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    assert client_address("")(str(address), []) == str(mapped or address)


@given(st.text(max_size=20) | st.from_regex(r"[0-9a-f]{0,4}([.:][0-9a-f]{0,4}){1,8}", fullmatch=True))
def test_what_ipaddress_does_not_take_is_no_address(text):
    try:
        expected = str(ip_address(text))
    except ValueError:
        expected = "0.0.0.0"
    if not set(text) & set("[%") and text.count(":") != 1 and "::ffff:" not in text:
        assert client_address("")(text, []) == expected


def test_networks_that_are_none_are_refused():
    with pytest.raises(ValueError, match="does not appear to be"):
        client_address("proxy.example")


@pytest.mark.parametrize(
    ("referer", "host"),
    [
        ("https://user:pw@Example.com:8443/p?q=1", "example.com"),
        ("android-app://com.slack", "com.slack"),
        ("https://sub.example.co.uk./x", "sub.example.co.uk"),
        ("http://bücher.example/", "xn--bcher-kva.example"),
        ("about:blank", None),
        ("garbage", None),
        ("javascript:1", None),
        ("", None),
        ("https://", None),
        ("https://exa mple/", None),
        ("https://[::1]/x", "::1"),
        ("https://[broken/x", None),
    ],
)
def test_of_a_referer_only_the_host_is_kept(referer, host):
    assert referring_host(referer) == host
    assert kept_referer(referer, "host") == host
    assert kept_referer(referer, "none") is None
    assert kept_referer(referer, "full") == (referer or None)
