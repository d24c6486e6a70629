"""How the platforms of a simulated city write: the one place that knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from streams.error_model import ErrorModel
from streams.messages import SOURCES
from streams.pack import CityPack
from streams.platform_writer import PlatformWriter


class Platforms:
    """Writes messages of the sources' platforms: as the pack maps them, else by our names under theirs."""

    def __init__(self, pack: CityPack, model: ErrorModel) -> None:
        self._writers = {
            (source, name): PlatformWriter(pack, name)
            for source in SOURCES
            for name in getattr(model, source).platforms
            if name in pack.platforms and pack.platforms[name].source == source
        }
        self._wraps = {name for name, mapping in pack.platforms.items() if mapping.elements is not None}

    def is_mapped(self, source: str, platform: str | None) -> bool:
        """Whether it names its fields its own way."""
        return (source, platform) in self._writers

    def batches(self, source: str, platform: str | None) -> bool:
        """Whether its gateways can put messages into a plain array."""
        return not self.is_mapped(source, platform) or platform not in self._wraps

    def can_say(self, source: str, platform: str | None, fields: Mapping[str, Any]) -> bool:
        """Whether it has a way to say a message, of our fields with `time` in Unix ms."""
        writer = self._writers.get((source, platform or ""))
        if writer is None:
            return True
        try:
            writer.write(fields)
        except ValueError:
            return False
        return True

    def encode(
        self, source: str, platform: str | None, fields: Mapping[str, Any], *, plainly: bool = False
    ) -> tuple[bytes, list[tuple[str, bytes]], str]:
        """A message's bytes, its record's headers, and what stands behind the source's topic.

        ``plainly``: by our names, whatever the platform's; then it must not stand under the platform's header.
        """
        if platform is None or plainly:
            return orjson.dumps(fields), [], ""
        writer = self._writers.get((source, platform))
        value = orjson.dumps(fields if writer is None else writer.write(fields))
        return value, [("platform", platform.encode())], ""
