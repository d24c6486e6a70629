"""The worker's log: a line to read on a terminal, or one JSON object a line for machines.

Every line has a time, a level, a logger and a message; lines of the worker itself also have an ``event``, a word that
does not change with the wording, and the fields in `FIELDS` that tell of what.  Numbers that may be a caller's are
masked in every message and in every exception's text, as they are in reports, so what must be read exactly (an offset,
a version) is a field.

For machines nothing goes out by another way: warnings, uncaught exceptions, what libraries print, and the reason why a
worker does not start are lines of the log as well.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

from streams.privacy import mask_text

FIELDS = {
    "event": "what happened, as a word that stays",
    "service_version": "version of the worker",
    "group": "consumer group",
    "topic": "topic, without prefix",
    "topics": "several of them",
    "partition": "partition of the topic",
    "offset": "offset in the partition",
    "partitions": "how many partitions the worker has",
    "shards": "how many partitions `reports` has",
    "sink": "what had to be waited for",
    "wait_s": "seconds until it is tried again, or that were waited",
    "pack_version": "version of the city pack in use",
    "former_pack_version": "the one before it",
    "source": "source whose positions are not where it declares them to be",
    "platform": "its platform, if it is not the source's own",
    "declared_crs": "the datum it declares",
    "likely_crs": "the datum that would explain where its positions are; not there if none does",
    "offset_m": "how far they lie off, metres",
    "error": "kind of the error: the exception's class",
    "suppressed": "how many lines like this one were left out before it",
}
"""What a line may have beside time, level, logger and message; given to a log call in ``extra``."""

_LIBRARIES = {
    # What they have to say of an unreachable ClickHouse we say in one line, and of a late timer nobody can act.
    "urllib3": logging.ERROR,
    "clickhouse_connect": logging.CRITICAL,
    "mode.timers": logging.ERROR,
    "faust": logging.WARNING,
    "mode": logging.WARNING,
    "aiokafka": logging.WARNING,
    "agents.batch_transport": logging.WARNING,
}
"""Loggers of libraries, and from which level on they are heard, unless everything is."""

_NEVER_IN_FULL = {
    # At DEBUG these log requests and responses with the records in them.
    "aiokafka.conn": logging.INFO,
    "aiokafka.producer": logging.INFO,
}

_ALIKE_MOST = 5
_ALIKE_WITHIN_S = 60.0
_KINDS_MOST = 256


class JsonLines(logging.Formatter):
    """A log line as one JSON object: time (RFC 3339, UTC), level, logger, message, fields, and the traceback if any."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": message_of(record),
        }
        line |= fields_of(record)
        if trace := _trace_of(self, record):
            line["traceback"] = trace
        return json.dumps(line, ensure_ascii=False, default=str)


class ReadableLines(logging.Formatter):
    """A log line for people: time, level, logger, message, the fields after it, and the traceback below."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line, and its traceback."""
        fields = "".join(f" {name}={value}" for name, value in fields_of(record).items() if name != "event")
        line = f"{self.formatTime(record)} {record.levelname} {record.name} {message_of(record)}{fields}"
        trace = _trace_of(self, record)
        return f"{line}\n{trace}" if trace else line


def message_of(record: logging.LogRecord) -> str:
    """The record's message with numbers masked."""
    try:
        message = record.getMessage()
    except (TypeError, ValueError):  # a library's arguments do not fit its own text
        message = str(record.msg)
    return mask_text(message)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """The record's fields, those of `FIELDS` only: what libraries attach may hold anything."""
    return {name: value for name in FIELDS if (value := getattr(record, name, None)) is not None}


def _trace_of(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = []
    if record.exc_info:
        parts.append(formatter.formatException(record.exc_info))
    if record.stack_info:
        parts.append(record.stack_info)
    return mask_text("\n".join(parts))


class Repetitions(logging.Filter):
    """Lets five lines of a kind pass within a minute; the next that passes says how many were left out.

    Of a kind are lines of one logger, level and text before its arguments are put in, and with the same first argument
    if that is text (an address, a topic).  Remembers the 256 kinds met last.  DEBUG is never left out.
    """

    def __init__(self, most: int = _ALIKE_MOST, within_s: float = _ALIKE_WITHIN_S) -> None:
        super().__init__()
        self._most = most
        self._within_s = within_s
        # Kind to when its minute began, how many passed in it, and how many did not.
        self._kinds: OrderedDict[tuple[str, int, str, str], tuple[float, int, int]] = OrderedDict()
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is logged; one that is may get the field ``suppressed``."""
        if record.levelno <= logging.DEBUG:
            return True
        first = record.args[0] if isinstance(record.args, tuple) and record.args else ""
        kind = (record.name, record.levelno, str(record.msg), str(first) if isinstance(first, str | Exception) else "")
        with self._lock:
            began_s, passed, suppressed = self._kinds.pop(kind, (record.created, 0, 0))
            if record.created - began_s >= self._within_s:
                began_s, passed = record.created, 0
            is_logged = passed < self._most
            if is_logged and suppressed:
                record.suppressed = suppressed
            self._kinds[kind] = (began_s, passed + is_logged, 0 if is_logged else suppressed + 1)
            if len(self._kinds) > _KINDS_MOST:
                self._kinds.popitem(last=False)
        return is_logged


class LoggedText:
    """A text stream whose lines become lines of the log, for what is printed past it."""

    encoding = "utf-8"

    def __init__(self, name: str) -> None:
        self._log = logging.getLogger(name)
        self._begun = threading.local()

    def write(self, text: str) -> int:
        """Log every line that is complete; the rest waits for its end."""
        *lines, self._begun.text = (getattr(self._begun, "text", "") + text).split("\n")
        for line in lines:
            if line.strip():
                self._log.warning("%s", line.rstrip())
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """A line without its end is not flushed; it would be two."""

    def isatty(self) -> bool:
        """No."""
        return False


def set_up_logging(*, as_json: bool, stream: TextIO | None = None) -> None:
    """Log to standard error from level INFO on; :func:`hear` sets another level.

    For machines, everything that would be printed past the log goes through it from now on.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines() if as_json else ReadableLines())
    handler.addFilter(Repetitions())
    logging.basicConfig(level="INFO", handlers=[handler])
    logging.captureWarnings(True)
    if not as_json:
        return
    # A log that nobody reads any more must not be complained about in it.
    logging.raiseExceptions = False
    sys.stdout, sys.stderr = LoggedText("stdout"), LoggedText("stderr")
    sys.excepthook = _uncaught
    threading.excepthook = lambda told: _uncaught(told.exc_type, told.exc_value, told.exc_traceback)
    sys.unraisablehook = lambda told: _uncaught(told.exc_type, told.exc_value, told.exc_traceback)


def hear(level: str) -> None:
    """Log from this level on; DEBUG hears libraries too, but never what messages say."""
    logging.getLogger().setLevel(level)
    for name, least in (_NEVER_IN_FULL if level == "DEBUG" else _LIBRARIES).items():
        logging.getLogger(name).setLevel(max(least, logging.getLevelNamesMapping()[level]))


def _uncaught(kind: type[BaseException], error: BaseException | None, traceback: TracebackType | None) -> None:
    told = (kind, error or kind(), traceback)
    fields = {"event": "uncaught", "error": kind.__name__}
    logging.getLogger("citybrain").critical("uncaught exception", exc_info=told, extra=fields)
