"""VALUE_FORMAT=adtekio: an event as a message of the original pipeline, byte for byte.

The params are the line's own, except for a visitor who wishes not to be tracked: of those nothing that identifies is
left.
"""

from typing import Final

from collector.event import NO_PARAMS, Event
from kafkastore.message import Message
from kafkastore.record import EventValue

_IDENTIFYING: Final = frozenset(
    {b"adid", b"click", b"idfa_comb", b"lookup_key", b"partner_data", b"referer", b"reqparams"}
)
"""Names of ours in the params of a click or an orphan that are null where the visitor's wish is honoured."""


def text_value(event: Event, value: EventValue, *, now_ms: int, anonymous: bool, own_params: bool) -> bytes:
    """Give the message of an event; `own_params`: its params are ours, and not an app's."""
    query = event.params
    if anonymous:
        query = _without_who(query) if own_params else NO_PARAMS
    message = Message(
        path=event.path,
        bot_name=value.bot_name,
        country=value.country,
        device=value.device,
        device_name=value.device_name,
        ip=value.ip,
        klag=max(now_ms // 1000 - event.at, 0),
        platform=value.platform or "",
        ts=event.at,
        query=query,
    )
    return message.encode()


def _without_who(params: bytes) -> bytes:
    pairs = ((pair.partition(b"=")[0], pair) for pair in params.split(b"&"))
    return b"&".join(name if name in _IDENTIFYING else pair for name, pair in pairs)
