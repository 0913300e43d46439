"""The ports of a collector, opened once, before processes part."""

import socket
from dataclasses import dataclass

from collector.settings import CollectorSettings
from collector.tls import Certificates, say_nothing_of_strange_names
from process.ports import listen


@dataclass(frozen=True, slots=True)
class Ports:
    """What all processes of a collector share."""

    public: socket.socket
    """PORT."""
    certificates: Certificates | None
    """With TLS on PORT."""
    plain: socket.socket | None
    """HTTP_PORT."""
    metrics: socket.socket | None
    """METRICS_PORT."""


def open_ports(settings: CollectorSettings) -> Ports:
    """Open every port and load the certificates; raises CannotStartError with the cure."""
    public = listen(settings.host, settings.port)
    certificates = None
    if settings.tls:
        certificates = Certificates(settings)
        say_nothing_of_strange_names()
    plain, metrics = (
        None if port is None else listen(settings.host, port, variable)
        for port, variable in ((settings.http_port, "HTTP_PORT"), (settings.metrics_port, "METRICS_PORT"))
    )
    return Ports(public, certificates, plain, metrics)
