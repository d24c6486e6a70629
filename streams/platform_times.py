"""Times as platforms write them: RFC 3339, Unix seconds or milliseconds, or a local time in a format of their own."""

from __future__ import annotations

import re
import zoneinfo
from datetime import UTC, datetime, timedelta
from fractions import Fraction

from streams.messages import MAX_TIME_MS, MIN_TIME_MS

RFC3339, UNIX_S, UNIX_MS = "rfc3339", "unix_s", "unix_ms"
NAMED_FORMATS = (RFC3339, UNIX_S, UNIX_MS)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_NUMBER = re.compile(r"-?\d{1,20}(?:\.\d{0,20})?", re.ASCII)
_LONGEST = 64
# After noon, so that a format of twelve hours must say which half of the day; no two of its numbers alike.
_PROBE = datetime(2026, 11, 23, 17, 35, tzinfo=UTC)


class TimeFormat:
    """One platform's way to write times.

    ``zone`` is the IANA name of where times without an offset are local.  A local time that comes twice, when clocks
    are put back, is taken for the first of the two.
    """

    def __init__(self, text: str, zone: str) -> None:
        self._text = text
        self._zone = zoneinfo.ZoneInfo(zone)

    def __str__(self) -> str:
        return self._text

    def read(self, value: object) -> int | str:
        """The time as a message may say it: Unix ms, rounded down, or the RFC 3339 text as it is.

        Raises ``TypeError`` for what is neither text nor number, ``ValueError`` for any other that is no such time.
        """
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise TypeError("a time is a text or a number")
        if self._text in (UNIX_S, UNIX_MS):
            return _unix_ms(value, 1000 if self._text == UNIX_S else 1)
        if not isinstance(value, str):
            value = str(value)
        if len(value) > _LONGEST:
            raise ValueError(f"{len(value)} characters are no time")
        if self._text == RFC3339:
            return value
        try:
            time = datetime.strptime(value, self._text)
        except ValueError:
            raise ValueError("another format") from None  # its own words would show all of the value
        if time.tzinfo is None:
            time = time.replace(tzinfo=self._zone)
        try:
            return (time - _EPOCH) // _MILLISECOND
        except OverflowError as error:
            raise ValueError("before the year 1 or after 9999") from error

    def write(self, time_ms: int) -> str | int | float:
        """A time as the platform writes it, rounded down to what its format can say.

        Raises ``ValueError`` for one that no calendar has there.
        """
        if self._text == UNIX_MS:
            return time_ms
        if self._text == UNIX_S:
            return time_ms // 1000 if time_ms % 1000 == 0 else time_ms / 1000
        try:
            time = _EPOCH + time_ms * _MILLISECOND
            if self._text == RFC3339:
                return time.isoformat(timespec="milliseconds")
            return time.astimezone(self._zone).strftime(self._text)
        except OverflowError as error:
            raise ValueError(f"{time_ms} ms is before the year 1 or after 9999") from error


def is_time_zone(name: str) -> bool:
    """Whether the IANA database has a time zone of this name."""
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        # A machine without the database knows no name at all, which says nothing about this one.
        return not zoneinfo.available_timezones()
    return True


def is_time_format(text: str) -> bool:
    """Whether it is a name, or a strptime format that says all of a time but its seconds."""
    if text in NAMED_FORMATS:
        return True
    try:
        read = datetime.strptime(_PROBE.strftime(text), text)
    except (ValueError, re.error):
        return False
    return read.replace(tzinfo=UTC) == _PROBE


def says_offset(text: str) -> bool:
    """Whether times of this format need no time zone."""
    return text in NAMED_FORMATS or "%z" in text


def _unix_ms(value: str | int | float, ms: int) -> int:
    if isinstance(value, int):
        time_ms = value * ms
    else:
        # A float has lost what a number of seconds with three decimals still said; its shortest text has not.
        text = value.strip() if isinstance(value, str) else repr(value)
        if isinstance(value, str) and not _NUMBER.fullmatch(text):
            raise ValueError("no number of seconds or milliseconds")
        time_ms = Fraction(text) * ms // 1
    if not MIN_TIME_MS <= time_ms <= MAX_TIME_MS:
        raise ValueError("before the year 1 or after 9999")
    return time_ms
