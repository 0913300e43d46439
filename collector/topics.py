"""The topics an in-app event may name: the same for the collector, which writes them, and the kafkastore."""

import re
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, Field

from collector.event import CLICKS, ORPHANS, REFERRALS

BOTS: Final = "bots"
"""The topic of bots' clicks and referrals under BOTS=separate."""

_OURS: Final = frozenset({CLICKS, REFERRALS, ORPHANS, BOTS})
_TOPIC: Final = re.compile(r"[a-zA-Z0-9._-]{1,200}")


def _topics(value: str) -> tuple[str, ...]:
    topics = tuple(topic.strip() for topic in value.split(",") if topic.strip())
    for topic in topics:
        if not _TOPIC.fullmatch(topic):
            raise ValueError(f"`{topic}` is no name of a topic")
        if topic in _OURS or topic.endswith(".dead"):
            raise ValueError(f"`{topic}` is a topic of ours that no app may write to")
    return topics


_Topics = Annotated[
    tuple[str, ...], BeforeValidator(lambda value: _topics(value) if isinstance(value, str) else value)
]


class InAppSettings(BaseModel):
    """Which topics apps may write to."""

    inapp_topics: _Topics = Field(
        ("inapp",),
        min_length=1,
        description="topics an in-app event may name; the first is that of /t/{event}",
    )
