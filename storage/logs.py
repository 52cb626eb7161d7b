"""Log lines of both processes: a constant event with facts beside it, one line each, to standard error."""

import logging
import sys
from typing import Any

import structlog


def configure() -> None:
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"]),
            _escape_line,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("timestamp=%(asctime)s level=%(levelname)s event=%(name)s message=%(message)r"))
    logging.basicConfig(handlers=[handler])


def escape(text: str) -> str:
    """With escapes in place of what terminals and viewers act on: control characters, line ends, text direction."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


class _OneLine(logging.Formatter):
    """Of the libraries' own loggers, tracebacks included."""

    def format(self, record: logging.LogRecord) -> str:
        return escape(super().format(record))


def _escape_line(logger: Any, name: str, line: Any) -> str:
    return escape(line)
