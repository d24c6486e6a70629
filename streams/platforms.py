"""Platforms that name their fields their own way, read through the mappings of the city pack."""

from __future__ import annotations

from collections.abc import Sequence

from streams.messages import SourceMessage
from streams.pack_entries import PlatformMapping
from streams.refusal import Refusal


class PlatformReader:
    """Reads the messages of one platform as those of its source."""

    def __init__(self, mapping: PlatformMapping, timezone: str) -> None:
        self._mapping = mapping
        self._timezone = timezone

    def read(self, raw: bytes) -> SourceMessage | Refusal:
        """One element."""
        raise NotImplementedError

    def many(self, raw: bytes) -> Sequence[SourceMessage] | None:
        """A whole array at once."""
        return None
