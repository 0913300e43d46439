"""The text value of the original pipeline, `<path> <meta> <params>`, byte for byte: VALUE_FORMAT=adtekio.

    /t/click bot_name&country=DE&device=smartphone&device_name=iPhone&ip=1&klag=0&platform=ios&ts=1769860800 …

Meta's keys are sorted; null is a bare key. `ip` is the address as an integer, `klag` and `ts` are seconds. The params
are the line's own, except for a visitor who wishes not to be tracked: of those nothing that identifies is left.
"""

from ipaddress import ip_address
from typing import Final

from collector.event import NO_PARAMS, Event, encode_params
from kafkastore.record import EventValue

_META: Final = ("bot_name", "country", "device", "device_name")

_IDENTIFYING: Final = frozenset(
    {b"adid", b"click", b"idfa_comb", b"lookup_key", b"partner_data", b"referer", b"reqparams"}
)
"""Names of ours in the params of a click or an orphan that are null where the visitor's wish is honoured."""


def text_value(event: Event, value: EventValue, *, now_ms: int, anonymous: bool, own_params: bool) -> bytes:
    """Give the message of an event; `own_params`: its params are ours, and not an app's."""
    texts = {name: getattr(value, name) for name in _META}
    meta = {name: None if text is None else text.encode() for name, text in texts.items()}
    meta |= {
        "ip": None if value.ip is None else b"%d" % int(ip_address(value.ip)),
        "klag": b"%d" % max(now_ms // 1000 - event.at, 0),
        "platform": (value.platform or "").encode(),
        "ts": b"%d" % event.at,
    }
    params = event.params
    if anonymous:
        params = _without_who(params) if own_params else NO_PARAMS
    return b"%b %b %b" % (event.path.encode(), encode_params(meta), params)


def _without_who(params: bytes) -> bytes:
    pairs = ((pair.partition(b"=")[0], pair) for pair in params.split(b"&"))
    return b"&".join(name if name in _IDENTIFYING else pair for name, pair in pairs)
