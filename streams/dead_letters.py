"""Dead letters: what could not be used, kept unchanged on a topic for operators, and described everywhere else."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from streams.messages import SOURCE_OF_TOPIC, DeadLetterRecord, Reason
from streams.privacy import mask_text

_EXCERPT_BYTES = 400

try:
    SERVICE_VERSION = version("city-brain-streams")
except PackageNotFoundError:  # run from a source tree that was never installed
    SERVICE_VERSION = "unreleased"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One refused element and where it came from; ``value`` is its exact bytes."""

    topic: str
    partition: int
    offset: int
    index: int
    key: bytes | None
    value: bytes
    reason: Reason
    field: str | None
    detail: str
    ingested_ms: int

    @property
    def source(self) -> str:
        """The source, or the topic's name where it is not a source's topic."""
        return SOURCE_OF_TOPIC.get(self.topic, self.topic)

    def headers(self) -> list[tuple[str, bytes]]:
        """Headers of the record on the dead-letter topic, which say why; its value stays as it came."""
        texts = {
            "reason": self.reason.value,
            "field": self.field or "",
            "detail": mask_text(self.detail),
            "source": self.source,
            "topic": self.topic,
            "partition": str(self.partition),
            "offset": str(self.offset),
            "index": str(self.index),
            "service_version": SERVICE_VERSION,
        }
        return [(name, text.encode(errors="replace")) for name, text in texts.items()]

    @classmethod
    def from_headers(
        cls, headers: Sequence[tuple[str, bytes]], key: bytes | None, value: bytes, ingested_ms: int
    ) -> DeadLetter:
        """The dead letter that a record of the dead-letter topic holds; ``ValueError`` if it is none of ours."""
        texts = {name: data.decode(errors="replace") for name, data in headers}
        try:
            return cls(
                texts["topic"],
                int(texts["partition"]),
                int(texts["offset"]),
                int(texts["index"]),
                key,
                value,
                Reason(texts["reason"]),
                texts["field"] or None,
                texts["detail"],
                ingested_ms,
            )
        except KeyError as error:
            raise ValueError(f"a dead letter without the header {error}") from error

    def record(self) -> DeadLetterRecord:
        """The description for the table and the file: no content but a masked excerpt."""
        excerpt = self.value[:_EXCERPT_BYTES].decode(errors="replace")
        return DeadLetterRecord(
            origin=f"{self.topic}:{self.partition}:{self.offset}:{self.index}",
            reason=self.reason.value,
            field=self.field,
            detail=mask_text(self.detail),
            source=self.source,
            sha256=hashlib.sha256(self.value).hexdigest(),
            size_bytes=len(self.value),
            excerpt=mask_text(excerpt),
            ingested_at=str(np.datetime_as_string(np.datetime64(self.ingested_ms, "ms"), unit="ms", timezone="UTC")),
            service_version=SERVICE_VERSION,
        )
