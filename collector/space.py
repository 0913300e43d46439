"""What journals take on disk."""

import shutil
from pathlib import Path


class Space:
    """What all journals of a process may take on disk together, and do: its own and those it found."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.own = 0
        self.adopted = 0
        self._room = most_bytes

    def look_at(self, folder: Path) -> None:
        """Ask how much there is room for: the disk may be smaller than what we may take; raises OSError."""
        self._room = min(self.most_bytes, self.taken + shutil.disk_usage(folder).free)

    @property
    def taken(self) -> int:
        """Count the bytes."""
        return self.own + self.adopted

    @property
    def is_crowded(self) -> bool:
        """Whether more than half of the room is taken: what is shipped and durable then goes at once."""
        return self.taken > self._room // 2
