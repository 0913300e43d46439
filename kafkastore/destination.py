"""Where a batch was on its way to when it was claimed, stored with it in Redis."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Destination:
    """A Kafka, and how batches get there: two owners that agree on it cannot put one batch into two places."""

    cluster: str
    """The cluster's own id, wherever its brokers move; empty where a demo broker has none."""
    prefix: str
    delivery: str
    """exactly_once, or at_least_once."""

    @property
    def place(self) -> str:
        """The cluster and the prefix: where the checkpoints are."""
        return f"{self.cluster} {self.prefix}"
