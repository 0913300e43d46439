"""Whether a process should get work, and why not: what `/readyz` answers."""

import json
from dataclasses import dataclass

from aiohttp import web


@dataclass(frozen=True, slots=True)
class Readiness:
    """Reasons, each one clause for an operator; no reason names an address, a user or a password."""

    against: tuple[str, ...] = ()
    """Why it should get none: any of these is a 503."""
    degraded: tuple[str, ...] = ()
    """What is wrong although it works."""

    @property
    def status(self) -> str:
        """`ready`, `degraded` or `not ready`."""
        if self.against:
            return "not ready"
        return "degraded" if self.degraded else "ready"

    def response(self) -> web.Response:
        """Give the answer of `/readyz`."""
        return web.Response(
            status=503 if self.against else 200,
            text=json.dumps({"status": self.status, "reasons": [*self.against, *self.degraded]}) + "\n",
            content_type="application/json",
            headers={"Cache-Control": "no-store"},
        )
