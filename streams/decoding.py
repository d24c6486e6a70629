"""Decoding: the values of Kafka records in, typed messages out, and a refusal for each element that is none.

A value is one JSON object, an array of them, or a platform's envelope around such an array.  An array is decoded whole;
only where that fails are its elements told apart, so that only the bad ones are refused, each with its exact bytes.

The fast path trusts msgspec's typed decoding; only what it refuses is looked at field by field (:mod:`.refusal`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import msgspec

from streams.messages import (
    FEEDBACK,
    MESSAGE_OF_SOURCE,
    SOURCE_OF_TOPIC,
    TOPIC_OF_SOURCE,
    FeedbackMessage,
    Reason,
    SourceMessage,
)
from streams.pack import CityPack
from streams.platforms import Envelope, EnvelopeReader, PlatformReader
from streams.refusal import REFUSES, Refusal, explain_refusal

_MAX_BRACKETS = 1_000_000
"""An array that nests too deeply for the decoder and has more than this is not split; that would take seconds."""

_raw_list = msgspec.json.Decoder(list[msgspec.Raw])


class SourceRecord(NamedTuple):
    """One Kafka record of a source topic, a platform's own topic, or `dispatch.feedback`.

    ``topic`` is without prefix; without a timestamp its own `time` counts.  ``platform`` is the record's header of that
    name.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int | None
    key: bytes | None
    value: bytes
    platform: str | None = None


class RefusedElement(NamedTuple):
    """One element that is refused: its exact bytes, and why; ``place`` is its record's number and its index there."""

    place: tuple[int, int]
    value: bytes
    refusal: Refusal


@dataclass(slots=True)
class DecodedRecords:
    """What a batch of records was decoded to, in their order.

    ``sum(counts) == len(messages) + len(refused)``.
    """

    records: Sequence[SourceRecord]
    messages: list[SourceMessage | FeedbackMessage] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)
    """Record number and element index of each message."""
    refused: list[RefusedElement] = field(default_factory=list)
    """What never became a message."""
    counts: list[int] = field(default_factory=list)
    """How many elements each record has."""
    split: dict[int, Sequence[msgspec.Raw | bytes]] = field(default_factory=dict)
    """The elements of the arrays that were split so far, by record number."""

    def exact_bytes(self, row: int) -> bytes:
        """The bytes of a message as they came; an array that decoded at once is split only now."""
        number, index = self.places[row]
        if number not in self.split:
            value = self.records[number].value
            if not _is_array(value):
                return value
            self.split[number] = _raw_list.decode(value)
        return bytes(self.split[number][index])


PlatformReaders = Mapping[tuple[str, str], PlatformReader | EnvelopeReader]
"""What reads the records of a source topic that a platform sent, by topic and platform."""


def platform_readers(pack: CityPack, unit_of_metric: Mapping[str, str]) -> PlatformReaders:
    """The pack's platform mappings, compiled; ``unit_of_metric`` is what its rules are in."""
    return {
        (TOPIC_OF_SOURCE[mapping.source], name): (PlatformReader if mapping.elements is None else EnvelopeReader)(
            mapping, pack.timezone, unit_of_metric
        )
        for name, mapping in pack.platforms.items()
    }


class RecordDecoder:
    """Decodes the records of the source topics, of the platforms' own and of `dispatch.feedback`.

    An object larger than ``max_message_bytes``, alone or in an array, is `too_large`; a larger array or envelope than
    ``max_value_bytes`` is so as a whole.  ``platforms`` may be exchanged any time.
    """

    def __init__(self, *, max_message_bytes: int, max_value_bytes: int) -> None:
        self.platforms: PlatformReaders = {}
        self._max_message_bytes = max_message_bytes
        self._max_value_bytes = max_value_bytes
        self._native: dict[str, _Decoder] = {
            topic: _NativeDecoder(MESSAGE_OF_SOURCE[source]) for topic, source in SOURCE_OF_TOPIC.items()
        }
        self._native[FEEDBACK] = _NativeDecoder(FeedbackMessage)

    @property
    def topics(self) -> list[str]:
        """Every topic whose records can be decoded."""
        return [*self._native, *(f"{topic}.{platform}" for topic, platform in self.platforms)]

    def decode(self, records: Sequence[SourceRecord]) -> DecodedRecords:
        """Every element of the records, as a message or refused.

        Raises
        ------
        ValueError
            If a record comes from none of the `topics`.
        """
        into = DecodedRecords(records)
        into.counts.extend([self._decode(number, record, into) for number, record in enumerate(records)])
        return into

    def _decode(self, number: int, record: SourceRecord, into: DecodedRecords) -> int:
        """Append the record's messages and refusals; returns how many elements it has."""
        value = record.value
        decoder = self._decoder_of(record)
        has_envelope = isinstance(decoder, EnvelopeReader)
        is_array = _is_array(value)
        limit = self._max_value_bytes if is_array or has_envelope else self._max_message_bytes
        if len(value) > limit:
            into.refused.append(RefusedElement((number, 0), value, _too_large(len(value), limit)))
            return 1
        if record.topic == FEEDBACK and len(record.key or b"") > self._max_message_bytes:
            # It would travel through the log; what sources send leaves theirs behind.
            detail = f"a key of {len(record.key or b''):,} bytes, at most {self._max_message_bytes:,}"
            into.refused.append(RefusedElement((number, 0), value, Refusal(Reason.TOO_LARGE, None, detail)))
            return 1
        if isinstance(decoder, EnvelopeReader):
            envelope = decoder.open(value)
            if isinstance(envelope, Refusal):
                into.refused.append(RefusedElement((number, 0), value, envelope))
                return 1
            return self._decode_elements(number, envelope.elements, envelope, into)
        if not is_array:
            _decode_one((number, 0), value, decoder, into)
            return 1
        if len(value) <= self._max_message_bytes:
            decoded = decoder.many(value)
            if decoded is not None:
                into.messages.extend(decoded)
                into.places.extend((number, index) for index in range(len(decoded)))
                return len(decoded)
        return self._decode_each(number, value, decoder, into)

    def _decoder_of(self, record: SourceRecord) -> _Decoder | EnvelopeReader:
        topic, platform = record.topic, record.platform
        native = self._native.get(topic)
        if native is not None:
            # A platform that has no mapping sends what we read as it is: the header is then only its name.
            return native if platform is None else self.platforms.get((topic, platform), native)
        mapped = self.platforms.get(tuple(topic.rsplit(".", 1)))  # type: ignore[arg-type]
        if mapped is None:
            raise ValueError(f"{topic} is not a source topic; known: {', '.join(self.topics)}")
        return mapped

    def _decode_each(self, number: int, value: bytes, decoder: _Decoder, into: DecodedRecords) -> int:
        """An array whose elements must be told apart: only the bad ones are refused, each with its exact bytes."""
        try:
            elements: Sequence[msgspec.Raw | bytes] = _raw_list.decode(value)
        except RecursionError:
            split = _split_array(value)
            if split is None:
                refusal = Refusal(Reason.MALFORMED_JSON, None, "nested too deeply")
                into.refused.append(RefusedElement((number, 0), value, refusal))
                return 1
            elements = split
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            refusal = Refusal(Reason.MALFORMED_JSON, None, str(error))
            into.refused.append(RefusedElement((number, 0), value, refusal))
            return 1
        return self._decode_elements(number, elements, decoder, into)

    def _decode_elements(
        self, number: int, elements: Sequence[msgspec.Raw | bytes], decoder: _Decoder | Envelope, into: DecodedRecords
    ) -> int:
        into.split[number] = elements
        for index, element in enumerate(elements):
            raw = bytes(element)
            if len(raw) > self._max_message_bytes:
                refusal = _too_large(len(raw), self._max_message_bytes)
                into.refused.append(RefusedElement((number, index), raw, refusal))
                continue
            _decode_one((number, index), raw, decoder, into)
        return len(elements)


class _Decoder(Protocol):
    """Reads the messages of one topic."""

    def read(self, raw: bytes) -> SourceMessage | FeedbackMessage | Refusal:
        """One element."""
        ...

    def many(self, raw: bytes) -> Sequence[SourceMessage | FeedbackMessage] | None:
        """A whole array at once; None if its elements must be told apart."""
        ...


class _NativeDecoder:
    """Reads messages that name their fields as we do."""

    def __init__(self, message_type: type[SourceMessage] | type[FeedbackMessage]) -> None:
        self._one = msgspec.json.Decoder(message_type)
        self._many = msgspec.json.Decoder(list[message_type])  # type: ignore[valid-type]

    def read(self, raw: bytes) -> SourceMessage | FeedbackMessage | Refusal:
        """One element."""
        try:
            return self._one.decode(raw)
        except REFUSES:
            return explain_refusal(raw, self._one)

    def many(self, raw: bytes) -> Sequence[SourceMessage | FeedbackMessage] | None:
        """A whole array at once."""
        try:
            decoded: Sequence[SourceMessage | FeedbackMessage] = self._many.decode(raw)
        except REFUSES:
            return None
        return decoded


def _decode_one(place: tuple[int, int], value: bytes, decoder: _Decoder | Envelope, into: DecodedRecords) -> None:
    message = decoder.read(value)
    if isinstance(message, Refusal):
        into.refused.append(RefusedElement(place, value, message))
    else:
        into.messages.append(message)
        into.places.append(place)


def _too_large(size: int, limit: int) -> Refusal:
    return Refusal(Reason.TOO_LARGE, None, f"{size:,} bytes, at most {limit:,}")


def _is_array(value: bytes) -> bool:
    return value[:1] != b"{" and value.lstrip(b" \t\r\n")[:1] == b"["


# Strings whole, so that what looks like structure inside them is none.
_STRUCTURE = re.compile(rb'"(?:[^"\\]+|\\.)*"|[][{},]', re.DOTALL)


def _split_array(value: bytes) -> list[bytes] | None:
    """The elements of a JSON array that nests too deeply for the decoder; None if its brackets do not match."""
    if value.count(b"[") + value.count(b"{") > _MAX_BRACKETS:
        return None
    elements: list[bytes] = []
    depth = start = 0
    for token in _STRUCTURE.finditer(value):
        mark = value[token.start() : token.start() + 1]
        if mark in (b"[", b"{"):
            depth += 1
            if depth == 1:
                start = token.end()
        elif mark in (b"]", b"}"):
            depth -= 1
            if depth == 0:
                elements.append(value[start : token.start()].strip())
                return elements if all(elements) and not value[token.end() :].strip() else None
        elif mark == b"," and depth == 1:
            elements.append(value[start : token.start()].strip())
            start = token.end()
    return None
