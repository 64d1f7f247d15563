"""The log: one line an event on stderr, as text for people or as JSON for programs."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime, timezone
from typing import Final

LEVELS: Final = ("debug", "info", "warning", "error")
_PACKAGE: Final = "mq9_broker"
_TEXT: Final = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
_OWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def parse_levels(text: str) -> dict[str, str]:
    """Levels by logger from a text such as `info,transport=debug`; the empty name is the default.

    Raises:
        ValueError: the text is not of that form; the message says what was expected.
    """
    levels: dict[str, str] = {}
    for part in text.split(","):
        name, separator, level = part.strip().rpartition("=")
        if level not in LEVELS or (separator and not name.replace(".", "").replace("_", "").isalnum()):
            raise ValueError(
                f"expected one of {', '.join(LEVELS)}, or that for a module too, such as "
                f"info,transport=debug, got {text!r}"
            )
        levels[_logger_name(name)] = level
    return levels


def _logger_name(name: str) -> str:
    if not name or name == _PACKAGE or name.startswith(f"{_PACKAGE}."):
        return name
    return f"{_PACKAGE}.{name}"


def configure(levels: str, form: str) -> None:
    """Let the log be written to stderr from now on; may be called again with other levels.

    Args:
        levels: as for `parse_levels`.
        form: `text` or `json`.
    """
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else logging.Formatter(_TEXT))
    root.addHandler(handler)
    parsed = parse_levels(levels)
    root.setLevel(parsed.pop("", "info").upper())
    for name in list(logging.root.manager.loggerDict):
        if name.startswith(_PACKAGE):
            logging.getLogger(name).setLevel(logging.NOTSET)
    for name, level in parsed.items():
        logging.getLogger(name).setLevel(level.upper())


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, what was given as `extra`, exception."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        moment = datetime.fromtimestamp(record.created, timezone.utc)
        line: dict[str, object] = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update({key: value for key, value in vars(record).items() if key not in _OWN})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)
