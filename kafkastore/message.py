"""A message: the text value of the original pipeline, `<path> <meta> <params>`, written and read.

    /t/click bot_name&country=DE&device=smartphone&device_name=iPhone&ip=1&klag=0&platform=ios&ts=1769860800 a=b&c

Meta's keys are sorted; null is a bare key. `ip` is the address as an integer, `klag` and `ts` are seconds. Meta and
params are read by the rules of CGI: `&` and `;` both separate, `+` is a space, a bare key is none, `k=` is empty.
Reading is total: whatever bytes come in, out comes a whole Message or a MalformedMessageError.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from socket import AF_INET, AF_INET6, inet_pton
from typing import Final

from collector.event import NO_PARAMS, Value, decode_params, given

_FIELDS: Final = 3
_MOST_DIGITS: Final = 10
"""Of `ts`, as in an event line; `klag` is a difference of two."""

_LARGEST_ADDRESS: Final = 2**128 - 1


class MalformedMessageError(ValueError):
    """A value that is no message; the sentence says why."""


@dataclass(frozen=True, slots=True)
class Message:
    """What the original's readers know of an event."""

    path: str
    bot_name: str | None
    country: str | None
    device: str | None
    device_name: str | None
    ip: str | None
    """The address. An IPv6 one below `::1:0:0` is read as IPv4: an integer does not tell."""
    klag: int | None
    """Seconds from the event to its enrichment."""
    platform: str | None
    """Empty where it is unknown."""
    ts: int
    """Unix time in seconds."""
    query: bytes
    """The params, encoded: as the line had them."""

    @property
    def params(self) -> dict[bytes, Value]:
        """The params, decoded; an in-app event without any has the single letter `p` for them."""
        return {} if self.query == NO_PARAMS else decode_cgi(self.query)

    def encode(self) -> bytes:
        """Give the value."""
        meta = (
            f"bot_name{given(self.bot_name)}&country{given(self.country)}&device{given(self.device)}"
            f"&device_name{given(self.device_name)}&ip{'' if self.ip is None else f'={_integer(self.ip)}'}"
            f"&klag{'' if self.klag is None else f'={self.klag}'}&platform{given(self.platform)}&ts={self.ts}"
        )
        return b"%b %b %b" % (self.path.encode(), meta.encode(), self.query)

    @staticmethod
    def decode(value: bytes) -> "Message":
        """Read a value; raises MalformedMessageError."""
        fields = value.split(b" ")
        if len(fields) != _FIELDS:
            raise MalformedMessageError("not three fields")
        path, encoded, query = fields
        if not path.startswith(b"/") or not query:
            raise MalformedMessageError("the path does not start with a slash, or there are no params")
        try:
            path_text = path.decode()
        except UnicodeDecodeError:
            raise MalformedMessageError("the path is not UTF-8") from None
        meta = decode_cgi(encoded)
        ts = _number(meta, "ts", 10**_MOST_DIGITS - 1)
        if ts is None:
            raise MalformedMessageError(f"`ts` is not 1 to {_MOST_DIGITS} digits")
        ip = _number(meta, "ip", _LARGEST_ADDRESS)
        return Message(
            path=path_text,
            bot_name=text_of(meta, "bot_name"),
            country=text_of(meta, "country"),
            device=text_of(meta, "device"),
            device_name=text_of(meta, "device_name"),
            ip=None if ip is None else str(ip_address(ip)),
            klag=_number(meta, "klag", 10**_MOST_DIGITS - 1),
            platform=text_of(meta, "platform"),
            ts=ts,
            query=query,
        )


def decode_cgi(query: bytes) -> dict[bytes, Value]:
    """Decode a query by the rules of CGI: a repeated key's values become a list, in order."""
    return decode_params(query.replace(b";", b"&"))


def text_of(params: Mapping[bytes, Value], name: str) -> str | None:
    """Give the last value of a key; bytes that are not UTF-8 become U+FFFD."""
    value = params.get(name.encode())
    last = value[-1] if isinstance(value, list) else value
    return None if last is None else last.decode("utf-8", "replace")


def _number(params: Mapping[bytes, Value], name: str, largest: int) -> int | None:
    text = text_of(params, name)
    if text is None or not (text.isascii() and text.isdigit()) or len(text) > len(str(largest)):
        return None
    number = int(text)
    return number if number <= largest else None


def _integer(address: str) -> int:
    return int.from_bytes(inet_pton(AF_INET6 if ":" in address else AF_INET, address))
