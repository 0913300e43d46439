"""A redirect written in one piece is the answer that aiohttp would have written, and never more than one."""

from hypothesis import given
from hypothesis import strategies as st

from collector.redirect import redirect

OWN = "Server: onward\r\n"


def test_a_redirect_says_what_every_answer_of_a_link_says():
    head, _, rest = (
        redirect(307, "market://details?id=a.b&referrer=x%3Dy", OWN).decode().partition("\r\n\r\n")
    )
    first, *lines = head.split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    assert (first, rest) == ("HTTP/1.1 307 Temporary Redirect", "")
    assert headers.pop("Date").endswith(" GMT")
    assert headers == {
        "Server": "onward",
        "Cache-Control": "no-store",
        "Referrer-Policy": "strict-origin-when-cross-origin",
        "Content-Length": "0",
        "Location": "market://details?id=a.b&referrer=x%3Dy",
    }
    assert redirect(302, "https://a.example/", OWN).startswith(b"HTTP/1.1 302 Found\r\n")


@given(st.text(max_size=20) | st.text("\r\n\0 aé\ud800", max_size=5))
def test_a_target_is_one_line_or_no_redirect(target):
    answer = redirect(307, target, OWN)
    sendable = all(character >= " " or character == "\t" for character in target) and "\x7f" not in target
    if not sendable or "\ud800" in target:
        assert answer is None
    elif answer is not None:
        assert f"\r\nLocation: {target}\r\n\r\n".encode() in answer
        assert answer.count(b"\r\n") == 8
