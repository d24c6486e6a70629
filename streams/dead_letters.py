"""Dead letters: what could not be used, kept unchanged on a topic for operators, and described everywhere else."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from streams.messages import SOURCE_OF_TOPIC, DeadLetterRecord, Reason, source_of
from streams.privacy import mask_beginning, mask_text

_EXCERPT = 400
_LOOKED_AT_BYTES = 8 * _EXCERPT
"""An escaped character takes six bytes, twelve beyond the basic plane."""
# The name in any case, its letters perhaps escaped, and once more in a JSON text within a JSON text.
_NAME = "".join(rf"(?:{letter}|(?<!\\)\\++u00(?:{ord(letter):x}|{ord(letter.upper()):x}))" for letter in "caller")
_NAMED = re.compile(_NAME, re.IGNORECASE)
# What is named so: a text or another scalar if it is whole and the JSON goes on after it, else all that follows.
_CALLER = re.compile(
    rf"({_NAME}[^\":=>,]{{0,40}}+[\\\"']*+\s*+[:=>]\s*+)"
    r"(?:(?:\"(?:[^\"\\]|\\.)*+\"|-?\d[\d.e+-]*+|true|false|null)(?=\s*[,}\]])|.*)",
    re.IGNORECASE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")

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
    platform: str | None = None
    """The platform that the record's header named."""

    @property
    def source(self) -> str:
        """The source, or the topic's name where it is not a source's topic."""
        return source_of(self.topic) or self.topic

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
            "platform": self.platform or "",
            "ingested_at": _rfc3339(self.ingested_ms),
            "service_version": SERVICE_VERSION,
        }
        return [(name, text.encode(errors="replace")) for name, text in texts.items()]

    @classmethod
    def from_headers(cls, headers: Sequence[tuple[str, bytes]], key: bytes | None, value: bytes) -> DeadLetter:
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
                # A datetime64 has no zone, and says so with a warning when it is given one.
                int(np.datetime64(texts["ingested_at"].removesuffix("Z"), "ms").astype(np.int64)),
                texts["platform"] or None,
            )
        except KeyError as error:
            raise ValueError(f"a dead letter without the header {error}") from error

    @property
    def _is_of_a_hotline_platform(self) -> bool:
        """Its callers may stand under any name, so nothing of it may show."""
        return self.source == "hotline" and bool(self.platform or self.topic not in SOURCE_OF_TOPIC)

    def record(self) -> DeadLetterRecord:
        """The description for the table and the file: no content but a masked excerpt, where there may be one."""
        return DeadLetterRecord(
            origin=f"{self.topic}:{self.partition}:{self.offset}:{self.index}",
            reason=self.reason.value,
            field=self.field,
            detail=mask_text(self.detail),
            source=self.source,
            sha256=hashlib.sha256(self.value).hexdigest(),
            size_bytes=len(self.value),
            excerpt="" if self._is_of_a_hotline_platform else _excerpt(self.value),
            ingested_at=_rfc3339(self.ingested_ms),
            service_version=SERVICE_VERSION,
        )


def _rfc3339(time_ms: int) -> str:
    """RFC 3339 UTC with milliseconds."""
    return str(np.datetime_as_string(np.datetime64(time_ms, "ms"), unit="ms", timezone="UTC"))


def _without_callers(text: str) -> str:
    """The text with nothing of what is named after a caller."""
    try:
        return json.dumps(_blanked(json.loads(text)), ensure_ascii=False)
    except (ValueError, RecursionError):
        # Cut off, no JSON, or too deep.
        return _CALLER.sub(r'\1"****"', text)


def _blanked(part: Any) -> Any:
    if isinstance(part, dict):
        return {key: "****" if "caller" in key.lower() else _blanked(inner) for key, inner in part.items()}
    if isinstance(part, list):
        return [_blanked(inner) for inner in part]
    # A text may be JSON written twice.
    return _CALLER.sub(r'\1"****"', part) if isinstance(part, str) else part


def _excerpt(value: bytes) -> str:
    """The beginning of a value for a person to recognise it by: escapes resolved, caller left out, numbers masked.

    Many encoders escape what is not ASCII, and then the digits of `\\u7535` stand right before those of a phone number,
    and full-width digits are not digits at all.
    """
    text = value[:_LOOKED_AT_BYTES].decode(errors="replace").replace("\0", "")
    if _NAMED.search(text):
        text = _without_callers(text)
    text = re.sub(r"\\[nrt]", " ", _ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), text))
    # Two halves of an escaped pair are one character; a half alone cannot be written as UTF-8.
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    # A sender may have cut it too, in the middle of a number.
    is_cut = len(value) > _LOOKED_AT_BYTES or not text.rstrip().endswith(("}", "]"))
    return mask_beginning(text, _EXCERPT, is_cut=is_cut)
