"""Recorded messages as intake takes them."""

from __future__ import annotations

from streams.decoding import SourceRecord
from streams.messages import platform_named
from streams.recording import RecordedMessage


class SourceRecords:
    """Makes source records of recorded messages, one after the other.

    A recording need not have offsets: a message without one stands behind the one before it of its topic and partition.
    """

    def __init__(self) -> None:
        self._next_offset: dict[tuple[str, int], int] = {}

    def of(self, message: RecordedMessage) -> SourceRecord:
        """The next message as a record."""
        place = (message.topic, message.partition or 0)
        offset = self._next_offset.get(place, 0) if message.offset is None else message.offset
        self._next_offset[place] = offset + 1
        return SourceRecord(
            *place, offset, message.timestamp_ms, message.key, message.value, platform_named(message.headers)
        )
