"""Logs are for the operator: readable on a terminal, one JSON object a line everywhere else, always on stderr."""

import logging
import sys

from process.lean import without

with without("rich"):  # for tracebacks in colour
    import structlog
    from structlog.typing import FilteringBoundLogger, Processor

log: FilteringBoundLogger = structlog.get_logger()


def configure_logs(level: str) -> None:
    """Send our log and the libraries' warnings to stderr, from `level` on."""
    terminal = sys.stderr.isatty()
    render: Processor = (
        structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if terminal else "iso", utc=not terminal),
    ]
    if not terminal:
        shared.append(structlog.processors.format_exc_info)
    structlog.configure(
        processors=[*shared, render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processor=render, foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared]
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    # It says in pages of traceback what our own log says in a line; what it raises reaches us anyway.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
