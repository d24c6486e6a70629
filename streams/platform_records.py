"""The times in the records of a platform: found and moved without reading anything else of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from streams.messages import SOURCE_OF_TOPIC, TOPIC_OF_SOURCE, platform_named
from streams.pack_entries import PlatformMapping
from streams.platform_times import TimeFormat
from streams.recording import RecordedMessage

if TYPE_CHECKING:  # shapely comes with it, and a recording without platforms needs none
    from streams.pack import CityPack


class RecordTimes:
    """Where the records of one platform say their times, and how."""

    def __init__(self, mapping: PlatformMapping, timezone: str) -> None:
        self._format = TimeFormat(mapping.time_format, mapping.time_zone or timezone)
        (self._path,) = mapping.fields["time"]
        self._elements = mapping.elements

    def newest_ms(self, value: bytes) -> int | None:
        """The newest readable time in a record's value, Unix ms; None if there is none."""
        times: list[int] = []

        def noted(said: Any) -> Any:
            if (time_ms := self._ms(said)) is not None:
                times.append(time_ms)
            return said

        self._change(_decoded(value), noted)
        return max(times, default=None)

    def moved(self, value: bytes, shift_ms: int) -> bytes:
        """The value with every readable time moved; byte for byte the same without one."""
        is_same = True

        def later(said: Any) -> Any:
            nonlocal is_same
            time_ms = self._ms(said)
            if time_ms is None:
                return said
            try:
                written = self._format.write(time_ms + shift_ms)
            except ValueError:
                return said  # beyond the calendar
            is_same = False
            return str(written) if isinstance(said, str) else written

        decoded = _decoded(value)
        self._change(decoded, later)
        return value if is_same else json.dumps(decoded, ensure_ascii=False, separators=(",", ":")).encode()

    def _ms(self, said: object) -> int | None:
        try:
            time = self._format.read(said)
            if isinstance(time, int):
                return time
            read = datetime.fromisoformat(time)
        except (TypeError, ValueError):
            return None
        return int(read.timestamp() * 1000) if read.tzinfo is not None else None

    def _change(self, decoded: Any, change: Callable[[Any], Any]) -> None:
        """Put what ``change`` makes of it in the place of every time of a decoded value."""

        def in_each(wholes: Any) -> Any:
            for whole in wholes if isinstance(wholes, list) else [wholes]:
                _changed(whole, self._path.steps, change)
            return wholes

        steps = () if self._elements is None or self._path.in_envelope else self._elements.steps
        _changed(decoded, steps, in_each)


def record_times(pack: CityPack) -> dict[tuple[str, str], RecordTimes]:
    """Of each platform of a pack, by its source's topic and its name."""
    return {
        (TOPIC_OF_SOURCE[mapping.source], name): RecordTimes(mapping, pack.timezone)
        for name, mapping in pack.platforms.items()
    }


def platform_of(message: RecordedMessage) -> tuple[str, str] | None:
    """The source's topic, and the platform that a record names by its header or its topic; None if by neither."""
    named = platform_named(message.headers)
    if message.topic in SOURCE_OF_TOPIC:
        return None if named is None else (message.topic, named)
    topic, _, name = message.topic.rpartition(".")
    return (topic, name) if topic in SOURCE_OF_TOPIC else None


def _decoded(value: bytes) -> Any:
    # Python's own, for no other keeps a whole number of twenty digits, as the id of a camera.
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None


def _changed(value: Any, steps: Sequence[str | int], change: Callable[[Any], Any]) -> Any:
    """The value with what the steps lead to changed in place, as a mapping is read: also within a text with commas."""
    if not steps:
        return change(value)
    step, *others = steps
    if isinstance(step, str):
        if isinstance(value, dict) and step in value:
            value[step] = _changed(value[step], others, change)
        return value
    parts = value.split(",") if isinstance(value, str) else value
    if isinstance(parts, list) and step < len(parts):
        parts[step] = _changed(parts[step], others, change)
    return ",".join(parts) if isinstance(value, str) else value
