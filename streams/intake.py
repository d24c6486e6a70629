"""Intake: raw Kafka records in, located reports, feedback and dead letters out.

One pass over a batch: decode (typed, whole values at once; what a platform names its own way through its mapping),
then in columns the datum, the times, the category, the position and the geo-fence.  Every element that goes in comes
out as exactly one of: a report (or a reading for the rules to judge), feedback, a dead letter, or a quiet element (a
reading that changes nothing, a cleared alarm).

The fast path trusts msgspec's typed decoding; only what it refuses is looked at field by field (:mod:`.refusal`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np

from geo.datum import CRS, to_wgs84
from geo.gazetteer import Gazetteer
from streams.dead_letters import DeadLetter
from streams.feedback import ACTIONS, Feedback, feedback_key, incident_parts
from streams.messages import (
    FEEDBACK,
    LABEL_FIELD,
    MAX_TIME_MS,
    MESSAGE_OF_SOURCE,
    MIN_TIME_MS,
    SOURCE_OF_TOPIC,
    SOURCES,
    TOPIC_OF_SOURCE,
    Action,
    FeedbackMessage,
    HotlineMessage,
    IotMessage,
    PatrolMessage,
    Reason,
    SourceMessage,
    VideoMessage,
    source_of,
)
from streams.pack import CityPack, SourceEntry
from streams.platforms import Envelope, EnvelopeReader, PlatformReader
from streams.privacy import CallerHasher, mask_beginning
from streams.readings import ReadingFilter, ReadingRules
from streams.refusal import REFUSES, Refusal, explain_refusal
from streams.reports import NO_POSITION, LocatedReports, Reading
from streams.terms import PackTerms

_Floats = np.ndarray[Any, np.dtype[np.float64]]
_Ints = np.ndarray[Any, np.dtype[np.int64]]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_CREDIBLE_LEAP_MS = 366 * 86_400_000
_CREDIBLE_IN_A_ROW = 100
_MAX_TEXT = 500
"""Characters of address and of text that travel on; a longer one is cut."""
_MAX_SHOWN = 64
"""Characters of a wrong value that its refusal shows."""
_MAX_BRACKETS = 1_000_000
"""An array that nests too deeply for the decoder and has more than this is not split; that would take seconds."""


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


@dataclass(frozen=True, slots=True)
class IntakeLimits:
    """What a message may be.  A value outside the legal range raises ``ValueError``."""

    future_s: int = 600
    """An event time further ahead of the ingestion time than this is `future_time`."""
    too_old_s: int = 30 * 86_400
    """An event time further behind it is `too_old`; also how long a message's id is remembered."""
    max_message_bytes: int = 1 << 20
    """A larger object, alone or in an array, is `too_large`."""
    max_value_bytes: int = 16 << 20
    """A larger array is refused whole without being looked into."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("future_s", 0, 86_400),
            ("too_old_s", 60, 366 * 86_400),
            ("max_message_bytes", 1_000, 64 << 20),
            ("max_value_bytes", 1_000, 64 << 20),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"intake.{name} = {value}: must be {low} to {high}")


@dataclass(slots=True)
class IntakeBatch:
    """What became of a batch of records.

    ``elements == len(reports) + len(feedback) + len(dead_letters) + quiet_readings``.  ``dead_letter_records`` and
    ``feedback_records`` are the numbers of the records they come from.  ``placed_by_name`` and ``unplaced`` count the
    tickets without coordinates that are reports.
    """

    reports: LocatedReports
    dead_letters: list[DeadLetter]
    records: int
    elements: int
    quiet_readings: int
    elements_by_source: dict[str, int] = field(default_factory=dict)
    dead_letter_records: list[int] = field(default_factory=list)
    feedback: list[Feedback] = field(default_factory=list)
    feedback_records: list[int] = field(default_factory=list)
    placed_by_name: int = 0
    unplaced: int = 0


class IntakePack:
    """A pack as intake needs it, compiled once; making one may take seconds, taking it up none."""

    def __init__(self, pack: CityPack) -> None:
        self.pack = pack
        self.terms = PackTerms(pack)
        self.sources = {source: _source_rules(pack, source) for source in SOURCES}
        places = pack.places
        self.gazetteer = Gazetteer(
            pack.grid,
            ((name, *aliases) for name, aliases in zip(places.names, places.aliases, strict=True)),
            places.lon,
            places.lat,
            places.accuracy_m,
            places.grid_codes,
        )
        devices = list(pack.devices.values())
        at = pack.grid.locate(np.array([one.lon for one in devices]), np.array([one.lat for one in devices]))
        self.inside = frozenset(devices[number].id for number in np.flatnonzero(at >= 0).tolist())
        """The devices of the registry that stand within the city."""
        self.mapped: dict[tuple[str, str], _Decoder | EnvelopeReader] = {
            (TOPIC_OF_SOURCE[mapping.source], name): (PlatformReader if mapping.elements is None else EnvelopeReader)(
                mapping, pack.timezone, self.terms.reading_rules.unit_of_metric
            )
            for name, mapping in pack.platforms.items()
        }


class Intake:
    """Turns records of the source topics into located reports of one city.

    The numbers in its reports stand for its `terms`.  ``one_clock``: a recording is replayed as one stream, so its
    source partitions share one mark; the worker keeps one for each partition.
    """

    def __init__(
        self, pack: CityPack | IntakePack, key: bytes, limits: IntakeLimits | None = None, *, one_clock: bool = False
    ):
        self.limits = limits or IntakeLimits()
        self.marks: dict[tuple[str, int], int] = {}
        self._doubted: dict[tuple[str, int], tuple[int, int]] = {}
        self._one_clock = one_clock
        self._hasher = CallerHasher(key)
        self._readings = ReadingFilter(ReadingRules({}, {}), future_s=self.limits.future_s)
        self._partition_numbers: dict[tuple[str, int], int] = {}
        self._raw_list = msgspec.json.Decoder(list[msgspec.Raw])
        self._native: dict[str, _Decoder] = {
            topic: _NativeDecoder(MESSAGE_OF_SOURCE[source]) for topic, source in SOURCE_OF_TOPIC.items()
        }
        self._native[FEEDBACK] = _NativeDecoder(FeedbackMessage)
        self.use(pack if isinstance(pack, IntakePack) else IntakePack(pack))

    def use(self, made: IntakePack) -> None:
        """Go on with another version of the city's pack.  What was last heard of each partition stays."""
        self.pack, self.terms = made.pack, made.terms
        self._sources, self._gazetteer, self._mapped = made.sources, made.gazetteer, made.mapped
        self._inside = made.inside
        self._readings.rules = made.terms.reading_rules
        # Where a device was found to be within the city last time, so that it need not be asked each time.
        self._found_at: dict[str, tuple[float | None, float | None, str | None]] = {}

    def forget(self, topic: str, partition: int) -> None:
        """A partition came from another worker, who may have passed on readings that were never seen here."""
        number = self._partition_numbers.get((topic, partition))
        if number is not None:
            self._readings.forget(number)

    @property
    def topics(self) -> list[str]:
        """Every topic that can be taken: the sources', the platforms' own, and `dispatch.feedback`."""
        return [*self._native, *self.pack.platform_topics]

    def take(self, records: Sequence[SourceRecord]) -> IntakeBatch:
        """Every element of the records, as a report, feedback, a dead letter or a quiet reading, in stream order."""
        read = _Batch(records)
        elements_of = [self._decode(number, record, read) for number, record in enumerate(records)]
        times_ms = [_time_ms(message.time) for message in read.messages]
        time_ms = np.asarray(times_ms, np.int64)
        ingested, marks = self._ingestion(records, read.places, times_ms)
        row_record = [number for number, _ in read.places]
        row_ingested = np.asarray([ingested[number] for number in row_record], np.int64)
        self._require_times(time_ms, row_ingested, read)

        mark_ms = np.asarray([marks[number] for number in row_record], np.int64)
        taken = self._locate_all(read, time_ms, mark_ms)
        rows = np.asarray(taken.rows, np.int64)
        taken.columns["ingested_ms"] = row_ingested[rows]
        taken.columns["mark_ms"] = mark_ms[rows]
        kept = np.ones(len(rows), bool)
        kept[[at for at, row in enumerate(taken.rows) if row in read.refusals or row in taken.quiet]] = False
        reports = LocatedReports.from_columns(**taken.columns).take(kept)
        feedback = [
            self._feedback(row, int(np.searchsorted(rows[kept], row)), int(time_ms[row]), int(row_ingested[row]), read)
            for row in read.feedback
            if row not in read.refusals
        ]

        refused = read.refused
        for row, refusal in read.refusals.items():
            number, index = read.places[row]
            value = self._exact_bytes(number, index, records[number].value, read.raws)
            refused.append((number, index, value, refusal))
        refused.sort(key=lambda item: item[:2])
        by_topic: dict[str, int] = {}
        for record, count in zip(records, elements_of, strict=True):
            by_topic[record.topic] = by_topic.get(record.topic, 0) + count
        by_source: dict[str, int] = {}
        for topic, count in by_topic.items():
            source = source_of(topic) or topic
            by_source[source] = by_source.get(source, 0) + count
        return IntakeBatch(
            reports,
            [
                _dead_letter(records[number], index, value, refusal, ingested[number])
                for number, index, value, refusal in refused
            ],
            len(records),
            sum(elements_of),
            len(taken.quiet) - sum(row in read.refusals for row in taken.quiet),
            by_source,
            [number for number, *_ in refused],
            feedback,
            [row_record[row] for row in read.feedback if row not in read.refusals],
            taken.placed_by_name,
            taken.unplaced,
        )

    # ------------------------------------------------------------------------------------------------- decode

    def _decode(self, number: int, record: SourceRecord, read: _Batch) -> int:
        """Append the record's messages and refusals; returns how many elements it has."""
        value = record.value
        decoder = self._decoder_of(record)
        has_envelope = isinstance(decoder, EnvelopeReader)
        is_array = _is_array(value)
        limit = self.limits.max_value_bytes if is_array or has_envelope else self.limits.max_message_bytes
        if len(value) > limit:
            refusal = Refusal(Reason.TOO_LARGE, None, f"{len(value):,} bytes, at most {limit:,}")
            read.refused.append((number, 0, value, refusal))
            return 1
        if record.topic == FEEDBACK and len(record.key or b"") > self.limits.max_message_bytes:
            # It would travel through the log; what sources send leaves theirs behind.
            detail = f"a key of {len(record.key or b''):,} bytes, at most {self.limits.max_message_bytes:,}"
            read.refused.append((number, 0, value, Refusal(Reason.TOO_LARGE, None, detail)))
            return 1
        if isinstance(decoder, EnvelopeReader):
            envelope = decoder.open(value)
            if isinstance(envelope, Refusal):
                read.refused.append((number, 0, value, envelope))
                return 1
            return self._decode_elements(number, envelope.elements, envelope, read)
        if not is_array:
            _decode_one(number, 0, value, decoder, read)
            return 1
        if len(value) <= self.limits.max_message_bytes:
            decoded = decoder.many(value)
            if decoded is not None:
                read.add(number, decoded)
                return len(decoded)
        return self._decode_each(number, value, decoder, read)

    def _decoder_of(self, record: SourceRecord) -> _Decoder | EnvelopeReader:
        topic, platform = record.topic, record.platform
        native = self._native.get(topic)
        if native is not None:
            # A platform that has no mapping sends what we read as it is: the header is then only its name.
            return native if platform is None else self._mapped.get((topic, platform), native)
        mapped = self._mapped.get(tuple(topic.rsplit(".", 1)))  # type: ignore[arg-type]
        if mapped is None:
            raise ValueError(f"{topic} is not a source topic; known: {', '.join(self.topics)}")
        return mapped

    def _decode_each(self, number: int, value: bytes, decoder: _Decoder, read: _Batch) -> int:
        """An array whose elements must be told apart: only the bad ones are refused, each with its exact bytes."""
        try:
            elements: Sequence[msgspec.Raw | bytes] = self._raw_list.decode(value)
        except RecursionError:
            split = _split_array(value)
            if split is None:
                read.refused.append((number, 0, value, Refusal(Reason.MALFORMED_JSON, None, "nested too deeply")))
                return 1
            elements = split
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            read.refused.append((number, 0, value, Refusal(Reason.MALFORMED_JSON, None, str(error))))
            return 1
        return self._decode_elements(number, elements, decoder, read)

    def _decode_elements(
        self, number: int, elements: Sequence[msgspec.Raw | bytes], decoder: _Decoder | Envelope, read: _Batch
    ) -> int:
        read.raws[number] = elements
        for index, element in enumerate(elements):
            raw = bytes(element)
            if len(raw) > self.limits.max_message_bytes:
                detail = f"{len(raw):,} bytes, at most {self.limits.max_message_bytes:,}"
                read.refused.append((number, index, raw, Refusal(Reason.TOO_LARGE, None, detail)))
                continue
            _decode_one(number, index, raw, decoder, read)
        return len(elements)

    def _exact_bytes(
        self, number: int, index: int, value: bytes, raws: dict[int, Sequence[msgspec.Raw | bytes]]
    ) -> bytes:
        """The bytes of one element as they came; an array that decoded at once is split only now."""
        if number not in raws:
            if not _is_array(value):
                return value
            raws[number] = self._raw_list.decode(value)
        return bytes(raws[number][index])

    # -------------------------------------------------------------------------------------------------- times

    def _ingestion(
        self, records: Sequence[SourceRecord], places: Sequence[tuple[int, int]], times_ms: Sequence[int]
    ) -> tuple[list[int], list[int]]:
        """Ingestion time and source-partition mark of each record, advancing the marks."""
        own_times: dict[int, list[int]] = {}
        if any(record.timestamp_ms is None for record in records):
            for (number, _), time_ms in zip(places, times_ms, strict=True):
                if MIN_TIME_MS <= time_ms <= MAX_TIME_MS:
                    own_times.setdefault(number, []).append(time_ms)
        ingested: list[int] = []
        marks: list[int] = []
        for number, record in enumerate(records):
            # Feedback says nothing of how far the sources' reports have come.
            clock = ("", 0) if self._one_clock and record.topic != FEEDBACK else (record.topic, record.partition)
            mark = self.marks.get(clock)
            at_ms = record.timestamp_ms
            if at_ms is not None:
                mark = at_ms if mark is None else max(mark, at_ms)
            elif number in own_times:
                at_ms, mark = self._heard_at_own_time(clock, mark, own_times[number])
            else:
                # A value without any readable time is taken to have come when its stream was last heard.
                at_ms = mark or 0
            if mark is not None:
                self.marks[clock] = mark
            ingested.append(at_ms)
            marks.append(mark or 0)
        return ingested, marks

    def _heard_at_own_time(self, clock: tuple[str, int], mark: int | None, times_ms: Sequence[int]) -> tuple[int, int]:
        """Ingestion time and mark of a record that came, for want of a timestamp, at the newest of its own times.

        One clock of the year 2099 must neither make all that follows late, nor the rest of its array too old: a leap of
        more than a year is believed only when a hundred such records in a row have made it.
        """
        doubted_ms, in_a_row = self._doubted.pop(clock, (0, 0))
        credible = times_ms if mark is None else [time for time in times_ms if time <= mark + _CREDIBLE_LEAP_MS]
        if credible:
            own_ms = max(credible)
            return own_ms, own_ms if mark is None else max(mark, own_ms)
        assert mark is not None
        own_ms = max(times_ms)
        in_a_row = in_a_row + 1 if in_a_row and abs(own_ms - doubted_ms) <= _CREDIBLE_LEAP_MS else 1
        if in_a_row == _CREDIBLE_IN_A_ROW:
            return own_ms, own_ms
        self._doubted[clock] = own_ms, in_a_row
        return own_ms, mark

    # ------------------------------------------------------------------------------------------------- locate

    def _require_times(self, time_ms: _Ints, ingested_ms: _Ints, read: _Batch) -> None:
        ahead_ms = time_ms - ingested_ms
        for row in np.flatnonzero(ahead_ms > self.limits.future_s * 1000).tolist():
            detail = f"{ahead_ms[row] / 1000:,.0f} s after its ingestion, at most {self.limits.future_s:,}"
            read.refusals[row] = Refusal(Reason.FUTURE_TIME, "time", detail)
        for row in np.flatnonzero(-ahead_ms > self.limits.too_old_s * 1000).tolist():
            detail = f"{-ahead_ms[row] / 1000:,.0f} s before its ingestion, at most {self.limits.too_old_s:,}"
            read.refusals[row] = Refusal(Reason.TOO_OLD, "time", detail)
        # A time at the very end of the calendar that its offset takes over it.
        for row in np.flatnonzero((time_ms < MIN_TIME_MS) | (time_ms > MAX_TIME_MS)).tolist():
            detail = "before the year 1 or after 9999 in UTC"
            read.refusals[row] = Refusal(Reason.INVALID_TIME, "time", detail)

    def _locate_all(self, read: _Batch, time_ms: _Ints, mark_ms: _Ints) -> _Located:
        """Whatever may become a report, located: first all but the readings that need no second look."""
        readings: list[int] = []
        quick: list[int] = []
        others: list[int] = []
        for row, message in enumerate(read.messages):
            if type(message) is FeedbackMessage:
                read.feedback.append(row)
                refusal = self._refuse_feedback(message)
                if refusal is not None:
                    read.refusals[row] = refusal
            elif type(message) is IotMessage and message.alarm is None:
                readings.append(row)
                (quick if self._is_quick(message) else others).append(row)
            else:
                others.append(row)
        located = self._locate(others, time_ms, read)
        if not readings:
            return located
        judged = [row for row in readings if row not in read.refusals]
        changing = self._that_change_something(judged, time_ms, mark_ms, read)
        located.quiet.update(row for row in judged if row not in changing)
        second_look = [row for row in quick if row in changing]
        located.quiet.difference_update(read.refusals)
        return located.joined_with(self._locate(second_look, time_ms, read)) if second_look else located

    def _is_quick(self, message: IotMessage) -> bool:
        """Whether nothing about a reading but its value and time can be wrong."""
        if message.metric is None or message.value is None or message.state is not None:
            return False
        at = (message.lon, message.lat, message.crs)
        if at == (None, None, None):
            return message.device_id in self._inside
        return self._found_at.get(message.device_id) == at

    def _that_change_something(self, rows: list[int], time_ms: _Ints, mark_ms: _Ints, read: _Batch) -> set[int]:
        """The readings that the rules must judge; those that no rule can judge are refused."""
        if not rows:
            return set()
        messages: list[Any] = [read.messages[row] for row in rows]
        metrics = [message.metric for message in messages]
        values = np.array([message.value for message in messages], np.float64)
        refused = self.terms.reading_rules.refusals(metrics, [message.unit for message in messages], values)
        # Without a timestamp it came at its own time, but a clock gone astray must not make all that follows stale.
        ahead_ms = time_ms[rows] - mark_ms[rows]
        for at in np.flatnonzero(ahead_ms > self.limits.future_s * 1000).tolist():
            detail = f"{ahead_ms[at] / 1000:,.0f} s after its stream was last heard, at most {self.limits.future_s:,}"
            refused[at] = Refusal(Reason.FUTURE_TIME, "time", detail)
        read.refusals.update((rows[at], refusal) for at, refusal in refused.items())
        keep = [at for at in range(len(rows)) if at not in refused]
        kept = [rows[at] for at in keep]
        partitions = []
        for row in kept:
            record = read.records[read.places[row][0]]
            place = (record.topic, record.partition)
            partitions.append(self._partition_numbers.setdefault(place, len(self._partition_numbers)))
        quiet = self._readings.quiet(
            partitions,
            [messages[at].device_id for at in keep],
            [metrics[at] for at in keep],
            values[keep],
            time_ms[kept],
            mark_ms[kept],
        )
        return {kept[at] for at in np.flatnonzero(~quiet).tolist()}

    def _locate(self, rows: Sequence[int], time_ms: _Ints, read: _Batch) -> _Located:
        """Columns of the given messages; refusals go to the batch."""
        refusals = read.refusals
        messages: list[Any] = [read.messages[row] for row in rows]
        reads: list[_Read] = []
        digests: list[bytes] = []
        for row, message in zip(rows, messages, strict=True):
            one = _READERS[type(message)](self, message)
            if isinstance(one, Refusal):
                refusals[row] = one  # what is wrong with the message itself goes before what is with its time
                one = _NOTHING
            reads.append(one)
            # The lengths keep a platform and an id that run into one another apart from another such pair.
            platform = message.platform or ""
            name = f"{SOURCES[one.source]}\0{len(platform)}\0{platform}\0{message.id}"
            digests.append(hashlib.blake2b(name.encode(), digest_size=16).digest())
        fields = zip(*reads, strict=True) if reads else ((),) * len(_Read._fields)
        columns: dict[str, Any] = dict(zip(_Read._fields, fields, strict=True))
        columns["report_id"] = [message.id for message in messages]
        columns["platform"] = [message.platform or "" for message in messages]
        keys = np.frombuffer(b"".join(digests), ">u8").reshape(-1, 2)
        columns["key_hi"], columns["key_lo"] = keys[:, 0], keys[:, 1]
        lon, lat, accuracy_m = (np.array(columns.pop(name), np.float64) for name in ("lon", "lat", "accuracy_m"))
        category = np.asarray(columns["category"], np.int32)
        crs = np.asarray(columns.pop("crs"), np.int8)
        quiet = columns.pop("quiet")
        by_name = np.asarray(columns.pop("by_name"), np.bool_)

        for number, name in enumerate(CRS):
            at = np.flatnonzero((crs == number) & ~np.isnan(lon))
            if number and len(at):
                lon[at], lat[at] = to_wgs84(lon[at], lat[at], name)

        for here in np.flatnonzero((category == _UNKNOWN) & ~np.asarray(quiet, np.bool_)).tolist():
            if rows[here] not in refusals:
                source = SOURCES[columns["source"][here]]
                label = getattr(messages[here], LABEL_FIELD[source])
                detail = f"{_shown(label)} is no label of {source} in the catalogue"
                refusals[rows[here]] = Refusal(Reason.UNKNOWN_CATEGORY, LABEL_FIELD[source], detail)

        cell = np.full(len(messages), -1, np.int32)
        placed = np.flatnonzero(~np.isnan(lon))
        cell[placed] = self.terms.locate(lon[placed], lat[placed])
        # A name whose place lies outside the city says no more than no name.
        lost = placed[(cell[placed] < 0) & by_name[placed]]
        lon[lost], lat[lost], by_name[lost] = np.nan, np.nan, False
        outside = placed[(cell[placed] < 0) & ~np.isnan(lon[placed])]
        if len(outside):
            for here, detail in zip(outside.tolist(), self._where_outside(lon[outside], lat[outside]), strict=True):
                refusals.setdefault(rows[here], Refusal(Reason.OUTSIDE_CITY, "lon", detail))
        if len(self._found_at) > _MAX_FOUND_AT:
            self._found_at.clear()
        if _IOT in columns["source"]:
            for row, message in zip(rows, messages, strict=True):
                if type(message) is IotMessage and message.lon is not None and row not in refusals:
                    self._found_at[message.device_id] = (message.lon, message.lat, message.crs)

        with np.errstate(invalid="ignore"):
            columns["lon_e7"] = np.where(np.isnan(lon), NO_POSITION, np.rint(lon * 1e7)).astype(np.int32)
            columns["lat_e7"] = np.where(np.isnan(lat), NO_POSITION, np.rint(lat * 1e7)).astype(np.int32)
        columns["accuracy_cm"] = np.rint(accuracy_m * 100).astype(np.int32)
        columns["cell"] = cell
        columns["time_ms"] = time_ms[np.asarray(rows, np.int64)]
        origins = [read.places[row] for row in rows]
        topics = [read.records[number].topic for number, _ in origins]
        numbers = {topic: self.terms.topic(topic) for topic in dict.fromkeys(topics)}
        columns["topic"] = [numbers[topic] for topic in topics]
        columns["partition"] = [read.records[number].partition for number, _ in origins]
        columns["offset"] = [read.records[number].offset for number, _ in origins]
        columns["index"] = [index for _, index in origins]
        stands = np.array([row not in refusals for row in rows], np.bool_)
        tickets = stands & (np.asarray(columns["source"]) == _HOTLINE)
        return _Located(
            list(rows),
            columns,
            {row for row, is_quiet in zip(rows, quiet, strict=True) if is_quiet},
            int((tickets & by_name).sum()),
            int((tickets & np.isnan(lon)).sum()),
        )

    def _refuse_feedback(self, message: FeedbackMessage) -> Refusal | None:
        if message.action not in _ACTION_WORDS:
            detail = f"{_shown(message.action)} is none of {', '.join(_ACTION_WORDS)}"
            return Refusal(Reason.OUT_OF_RANGE, "action", detail)
        if incident_parts(self.pack.code, message.incident_id) is None:
            detail = f"{_shown(message.incident_id)} is no incident of {self.pack.name}"
            return Refusal(Reason.UNKNOWN_INCIDENT, "incident_id", detail)
        return None

    def _feedback(self, row: int, before: int, time_ms: int, ingested_ms: int, read: _Batch) -> Feedback:
        message: Any = read.messages[row]
        number, index = read.places[row]
        record = read.records[number]
        parts = incident_parts(self.pack.code, message.incident_id)
        assert parts is not None, "looked at when it was read"
        return Feedback(
            before,
            ACTIONS.index(Action(message.action)),
            *parts,
            *feedback_key(message),
            time_ms,
            ingested_ms,
            record.partition,
            record.offset,
            index,
            message.incident_id,
            record.key,
            self._exact_bytes(number, index, record.value, read.raws),
        )

    def _where_outside(self, lon: _Floats, lat: _Floats) -> list[str]:
        swapped = self.pack.grid.locate(lat, np.where(np.abs(lon) <= 90, lon, np.nan)) >= 0
        return [
            f"{x:.6f}, {y:.6f} (WGS-84) lies in no cell of {self.pack.name}"
            + ("; with lon and lat swapped it would" if is_swapped else "")
            for x, y, is_swapped in zip(lon.tolist(), lat.tolist(), swapped.tolist(), strict=True)
        ]

    # ---------------------------------------------------------------------------------------- the four sources

    def _read_iot(self, message: IotMessage) -> _Read | Refusal:
        if message.state not in (None, "raised", "cleared"):
            return Refusal(Reason.OUT_OF_RANGE, "state", f"{_shown(message.state)} is neither raised nor cleared")
        if message.alarm is None:
            if message.metric is None:
                return Refusal(Reason.MISSING_FIELD, "alarm", "neither an alarm nor a metric with its value")
            if message.value is None:
                return Refusal(Reason.MISSING_FIELD, "value", "a metric without its value")
            rules = self.terms.rules_of_metric.get(message.metric, ())
            # Without rules it was never sent to be judged; it is read all the same, for what may be wrong with it.
            reading = Reading(message.metric, message.value, rules) if rules else None
            return self._read("iot", message, None, message.device_id, reading=reading, quiet=not rules)
        return self._read("iot", message, message.alarm, message.device_id, quiet=message.state == "cleared")

    def _read_video(self, message: VideoMessage) -> _Read | Refusal:
        return self._read("video", message, message.event_type, message.camera_id, confidence=message.confidence)

    def _read_hotline(self, message: HotlineMessage) -> _Read | Refusal:
        return self._read("hotline", message, message.category, "", message.address, message.text)

    def _read_patrol(self, message: PatrolMessage) -> _Read | Refusal:
        return self._read("patrol", message, message.category, "", message.address, message.text)

    def _read(
        self,
        source: str,
        message: SourceMessage,
        label: str | None,
        device_id: str,
        address: str | None = None,
        text: str | None = None,
        *,
        confidence: float = np.nan,
        reading: Reading | None = None,
        quiet: bool = False,
    ) -> _Read | Refusal:
        """What all sources share: datum, position, accuracy, category, witness."""
        rules = self._sources[source]
        crs = rules.crs if message.crs is None else _CRS_NUMBER.get(message.crs, -1)
        if crs < 0:
            return Refusal(Reason.UNSUPPORTED_CRS, "crs", f"{_shown(message.crs)} is none of {', '.join(CRS)}")
        lon, lat, accuracy_m, asset_id = message.lon, message.lat, message.accuracy_m, message.asset_id
        if (lon is None) != (lat is None):
            missing, given = ("lon", "lat") if lon is None else ("lat", "lon")
            return Refusal(Reason.MISSING_FIELD, missing, f"{given} without {missing}")
        by_name = False
        if device_id:
            device = self.pack.devices.get(device_id)
            if device is not None:
                asset_id = asset_id or device.asset_id
                accuracy_m = device.accuracy_m if accuracy_m is None else accuracy_m
                if lon is None:
                    lon, lat, crs = device.lon, device.lat, 0  # the registry is in WGS-84 once read
            elif lon is None:
                detail = f"{_shown(device_id)} is not in devices.csv and the message has no position"
                return Refusal(Reason.UNKNOWN_DEVICE, _DEVICE_FIELD[source], detail)
        elif lon is None and (address or text):
            place = self._gazetteer.place(address or "", text or "")
            if place is not None:
                lon, lat, accuracy_m, crs, by_name = place.lon, place.lat, place.accuracy_m, 0, True
        category = _UNKNOWN
        if reading is not None:
            category = reading.rules[0][1]
        elif label is not None:
            category = self.pack.category_of(source, label)
            if category == _UNKNOWN:
                category = rules.fallback
        return _Read(
            rules.number,
            category,
            np.nan if lon is None else lon,
            np.nan if lat is None else lat,
            crs,
            rules.entry.accuracy_m if accuracy_m is None else accuracy_m,
            confidence,
            device_id,
            reading,
            self._witness(rules.entry.witness, message),
            asset_id or "",
            mask_beginning(address, _MAX_TEXT) if address else "",
            mask_beginning(text, _MAX_TEXT) if text else "",
            quiet,
            by_name,
        )

    def _witness(self, name: str | None, message: SourceMessage) -> str:
        who = getattr(message, name, None) if name else None
        if not who:
            return ""
        return self._hasher.hash(who) if name == "caller" else str(who)


_UNKNOWN = -1
_IOT, _HOTLINE = SOURCES.index("iot"), SOURCES.index("hotline")
_MAX_FOUND_AT = 1_000_000
_ACTION_WORDS = [action.value for action in Action]
_CRS_NUMBER = {name: number for number, name in enumerate(CRS)}
_DEVICE_FIELD = {"iot": "device_id", "video": "camera_id"}


class _Read(NamedTuple):
    """What a message says, before columns: ``lon`` and ``lat`` in the datum ``crs``, NaN where it has no position."""

    source: int
    category: int
    lon: float
    lat: float
    crs: int
    accuracy_m: float
    confidence: float
    device: str
    reading: Reading | None
    witness: str
    asset_id: str
    address: str
    text: str
    quiet: bool
    by_name: bool


_NOTHING = _Read(0, _UNKNOWN, np.nan, np.nan, 0, 0.0, np.nan, "", None, "", "", "", "", False, False)


@dataclass(slots=True)
class _Batch:
    """A batch under way: what was decoded of it, and what was refused."""

    records: Sequence[SourceRecord]
    messages: list[SourceMessage | FeedbackMessage] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)
    """Record number and element index of each message."""
    refused: list[tuple[int, int, bytes, Refusal]] = field(default_factory=list)
    """What never became a message, by record number and element index."""
    refusals: dict[int, Refusal] = field(default_factory=dict)
    """By message."""
    raws: dict[int, Sequence[msgspec.Raw | bytes]] = field(default_factory=dict)
    """The elements of arrays that were split, by record number."""
    feedback: list[int] = field(default_factory=list)
    """The messages that are feedback."""

    def add(self, number: int, messages: Sequence[SourceMessage | FeedbackMessage]) -> None:
        """All elements of an array."""
        self.messages.extend(messages)
        self.places.extend((number, index) for index in range(len(messages)))


@dataclass(slots=True)
class _Located:
    """Columns of the messages ``rows``, ascending, and which of the batch's messages are quiet."""

    rows: list[int]
    columns: dict[str, Any]
    quiet: set[int]
    placed_by_name: int
    unplaced: int

    def joined_with(self, other: _Located) -> _Located:
        """Both, in order of the messages."""
        order = np.argsort([*self.rows, *other.rows], kind="stable").tolist()
        rows = [*self.rows, *other.rows]
        columns = {}
        for name, column in self.columns.items():
            both = [*column, *other.columns[name]]
            columns[name] = [both[at] for at in order]
        return _Located(
            [rows[at] for at in order],
            columns,
            self.quiet | other.quiet,
            self.placed_by_name + other.placed_by_name,
            self.unplaced + other.unplaced,
        )


class _Decoder(Protocol):
    """Reads the messages of one topic."""

    def read(self, raw: bytes) -> SourceMessage | FeedbackMessage | Refusal:
        """One element."""
        ...

    def many(self, raw: bytes) -> Sequence[SourceMessage | FeedbackMessage] | None:
        """A whole array at once; None if its elements must be told apart."""
        ...


def _decode_one(number: int, index: int, value: bytes, decoder: _Decoder | Envelope, read: _Batch) -> None:
    message = decoder.read(value)
    if isinstance(message, Refusal):
        read.refused.append((number, index, value, message))
    else:
        read.messages.append(message)
        read.places.append((number, index))


class _NativeDecoder:
    """Reads messages that name their fields as we do."""

    def __init__(self, message_type: type[SourceMessage] | type[FeedbackMessage]) -> None:
        self._one = msgspec.json.Decoder(message_type)
        self._many = msgspec.json.Decoder(list[message_type])  # type: ignore[valid-type]
        self._is_feedback = message_type is FeedbackMessage

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


class _SourceRules(NamedTuple):
    """What the pack says of a source, looked up once."""

    number: int
    entry: SourceEntry
    crs: int
    fallback: int


def _source_rules(pack: CityPack, source: str) -> _SourceRules:
    entry = pack.sources[source]
    fallback = _UNKNOWN if entry.fallback_category is None else pack.category_index(entry.fallback_category)
    return _SourceRules(SOURCES.index(source), entry, _CRS_NUMBER[entry.crs], fallback)


_READERS: dict[type[SourceMessage], Callable[[Intake, Any], _Read | Refusal]] = {
    IotMessage: Intake._read_iot,
    VideoMessage: Intake._read_video,
    HotlineMessage: Intake._read_hotline,
    PatrolMessage: Intake._read_patrol,
}


def _is_array(value: bytes) -> bool:
    return value[:1] != b"{" and value.lstrip(b" \t\r\n")[:1] == b"["


# Strings whole, so that what looks like structure inside them is none.
_STRUCTURE = re.compile(rb'"(?:[^"\\\\]+|\\\\.)*"|[][{},]', re.DOTALL)


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


def _shown(value: str | None) -> str:
    """A wrong value in a refusal: at most its beginning, without anybody's number."""
    return repr(None if value is None else mask_beginning(value, _MAX_SHOWN))


def _dead_letter(record: SourceRecord, index: int, value: bytes, refusal: Refusal, ingested_ms: int) -> DeadLetter:
    return DeadLetter(record.topic, record.partition, record.offset, index, record.key, value, *refusal, ingested_ms)


def _time_ms(time: datetime | int) -> int:
    # Whole milliseconds, towards the past; by integers, for a float loses the last one.
    return time if isinstance(time, int) else (time - _EPOCH) // _MILLISECOND
