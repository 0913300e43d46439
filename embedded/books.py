"""The books of one run: what was received is stored, a bot's, dead or queued, and nothing is lost. Pure."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Books:
    """Counts of events; filled while the pipeline runs, closed when it has stopped."""

    carried_over: int = 0
    """What an earlier run left in the queue."""
    stored: Counter[str] = field(default_factory=Counter)
    """Records that a reader of Kafka saw, by topic."""
    received: int = 0
    refused: int = 0
    """Events that the journal could not take: the collector counts them as dropped."""
    dropped_bots: int = 0
    queued: int = 0

    def close(self, collector: Mapping[str, Any], kafkastore: Mapping[str, Any], *, queued: int) -> None:
        """Enter what the processes said when they stopped, and what waits in Redis."""
        self.received = sum(collector.get("recorded", {}).values())
        self.refused = sum(collector.get("dropped", {}).values())
        self.carried_over += collector.get("adopted", 0)
        self.dropped_bots = kafkastore.get("dropped_bots", 0)
        self.queued = queued + collector.get("unshipped", 0)

    @property
    def bots(self) -> int:
        """Bots' events, wherever they went."""
        return self.stored["bots"] + self.dropped_bots

    @property
    def dead(self) -> int:
        """Dead letters."""
        return sum(count for topic, count in self.stored.items() if topic.endswith(".dead"))

    @property
    def people(self) -> int:
        """Events stored in the topics for people."""
        return self.stored.total() - self.stored["bots"] - self.dead

    @property
    def lost(self) -> int:
        """What went in and is nowhere; below zero, what came out twice."""
        return (
            self.carried_over
            + self.received
            - (self.people + self.bots + self.dead + self.queued)
            + self.refused
        )

    def sentence(self) -> str:
        """Give the closing line."""
        earlier = f" + {self.carried_over} carried over" if self.carried_over else ""
        return (
            f"received {self.received}{earlier} = stored {self.people} + bots {self.bots} + dead {self.dead}"
            f" + queued {self.queued}; lost {self.lost}"
        )
