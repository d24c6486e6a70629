"""The times in the records of a platform: found and moved without reading anything else of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
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
        times = [self._ms(part[step]) for part, step in self._places(_decoded(value))]
        return max((time for time in times if time is not None), default=None)

    def moved(self, value: bytes, shift_ms: int) -> bytes:
        """The value with every readable time moved; byte for byte the same without one."""
        decoded = _decoded(value)
        changed = False
        for part, step in self._places(decoded):
            time_ms = self._ms(part[step])
            if time_ms is None:
                continue
            try:
                said = self._format.write(time_ms + shift_ms)
            except ValueError:
                continue  # beyond the calendar
            part[step] = str(said) if isinstance(part[step], str) else said
            changed = True
        return json.dumps(decoded, ensure_ascii=False, separators=(",", ":")).encode() if changed else value

    def _ms(self, said: object) -> int | None:
        try:
            time = self._format.read(said)
            if isinstance(time, int):
                return time
            read = datetime.fromisoformat(time)
        except (TypeError, ValueError):
            return None
        return int(read.timestamp() * 1000) if read.tzinfo is not None else None

    def _places(self, decoded: Any) -> Iterator[tuple[Any, Any]]:
        """Objects or arrays of a decoded value, each with the key or index at which it has a time."""
        if self._elements is None or self._path.in_envelope:
            wholes = decoded if isinstance(decoded, list) else [decoded]
        else:
            found = _last(decoded, [*self._elements.steps, 0])
            wholes = found[0] if found is not None else []
        for whole in wholes:
            place = _last(whole, self._path.steps)
            if place is not None:
                yield place


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


def _last(whole: Any, steps: Sequence[str | int]) -> tuple[Any, Any] | None:
    """The innermost object or array on the way, with the last step, if all of the way is there."""
    part: Any = whole
    place = None
    for step in steps:
        if isinstance(step, str):
            is_there = isinstance(part, dict) and step in part
        else:
            is_there = isinstance(part, list) and step < len(part)
        if not is_there:
            return None
        place, part = (part, step), part[step]
    return place
