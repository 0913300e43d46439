"""What a user agent tells, by the value's fields: looked at once for each agent that is met often."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from collector.platform import platform_of
from kafkastore.bots import bot_of
from kafkastore.device import device_of


# 32,768 agents, more than a large site meets in a day: 32 MB of the usual ones (measured), never above 80.
@lru_cache(maxsize=32_768)
def _known_agent(user_agent: bytes, signals: frozenset[str]) -> Mapping[str, str | None]:
    device = device_of(user_agent)
    bot = bot_of(user_agent, signals)
    return {
        "user_agent": user_agent.decode("utf-8", "replace"),
        "browser": device.browser,
        "os": device.os,
        "device": device.device,
        "device_name": device.device_name,
        "platform": platform_of(user_agent) or None,
        "bot_name": bot.name if bot else None,
        "bot_class": bot.class_ if bot else None,
        "bot_reason": bot.reason if bot else None,
    }


_LONGEST_KNOWN_AGENT: Final = 512
"""Longer ones are rare and mostly hostile: they are looked at each time, so that they cannot fill the memory."""


def agent_of(user_agent: bytes, signals: frozenset[str]) -> Mapping[str, str | None]:
    """Give what a user agent and the collector's signals say, by field; looked at once for each that is met often."""
    know = _known_agent if len(user_agent) <= _LONGEST_KNOWN_AGENT else _known_agent.__wrapped__
    return know(user_agent, signals)
