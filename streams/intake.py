"""Intake: raw Kafka records in, located reports, feedback and dead letters out.

One pass over a batch: decode (:mod:`.decoding`), read what each message says (:mod:`.statements`), then in columns the
datum, the times, the category, the position and the geo-fence.  Every element that goes in comes out as exactly one of:
a report (or a reading for the rules to judge), feedback, a dead letter, or a quiet element (a reading that changes
nothing, a cleared alarm).
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from geo.datum import CRS, to_wgs84
from geo.gazetteer import Gazetteer
from streams.datum_guard import BY_NAME, DATUMS, REGISTRY, DatumGround, DatumGuard, Finding
from streams.dead_letters import DeadLetter
from streams.decoding import DecodedRecords, RecordDecoder, RefusedElement, SourceRecord, platform_readers
from streams.feedback import ACTIONS, Feedback, feedback_key, incident_parts
from streams.messages import (
    FEEDBACK,
    LABEL_FIELD,
    MAX_TIME_MS,
    MIN_TIME_MS,
    SOURCES,
    Action,
    FeedbackMessage,
    IotMessage,
    Reason,
    source_of,
)
from streams.pack import CityPack
from streams.place_keys import PlaceKeys
from streams.privacy import CallerHasher
from streams.readings import ReadingFilter, ReadingRules
from streams.refusal import Refusal, shown
from streams.reports import NO_POSITION, LocatedReports
from streams.signatures import Vocabulary, signatures
from streams.statements import NO_CATEGORY, NOTHING_SAID, Statement, StatementReader, unknown_category
from streams.terms import PackTerms

__all__ = ["Intake", "IntakeBatch", "IntakeLimits", "IntakePack", "SourceRecord"]

_Floats = np.ndarray[Any, np.dtype[np.float64]]
_Ints = np.ndarray[Any, np.dtype[np.int64]]
_Tiny = np.ndarray[Any, np.dtype[np.int8]]
_Mask = np.ndarray[Any, np.dtype[np.bool_]]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_CREDIBLE_LEAP_MS = 366 * 86_400_000
_CREDIBLE_IN_A_ROW = 100


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
        self.ground = DatumGround(pack.grid.bounds, pack.devices, self.gazetteer)
        self.platforms = platform_readers(pack, self.terms.reading_rules.unit_of_metric)
        self.vocabulary = Vocabulary(pack.phrases)


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
        self._place_keys = PlaceKeys()
        self._partition_numbers: dict[tuple[str, int], int] = {}
        self._decoder = RecordDecoder(
            max_message_bytes=self.limits.max_message_bytes, max_value_bytes=self.limits.max_value_bytes
        )
        self.use(pack if isinstance(pack, IntakePack) else IntakePack(pack))

    def use(self, made: IntakePack) -> None:
        """Go on with another version of the city's pack.  What was last heard of each partition stays."""
        self.pack, self.terms, self._vocabulary = made.pack, made.terms, made.vocabulary
        self._decoder.platforms = made.platforms
        self._statements = StatementReader(made.pack, made.terms, made.gazetteer, self._hasher)
        self._inside = made.inside
        self._readings.rules = made.terms.reading_rules
        # What was seen by the former pack says nothing of one that may declare another datum.
        self._guard = DatumGuard(made.ground)
        self._group_of_category = np.array(
            [made.terms.groups[one.group] if one.event else -1 for one in made.terms.categories], np.int32
        )
        # Where a device was found to be within the city last time, so that it need not be asked each time.
        self._found_at: dict[str, tuple[float | None, float | None, str | None]] = {}

    def forget(self, topic: str, partition: int) -> None:
        """A partition came from another worker, who may have passed on readings that were never seen here."""
        number = self._partition_numbers.get((topic, partition))
        if number is not None:
            self._readings.forget(number)

    @property
    def datum_findings(self) -> tuple[Finding, ...]:
        """The senders whose positions are not where they are declared to be, as far as is known now."""
        return self._guard.findings

    @property
    def topics(self) -> list[str]:
        """Every topic that can be taken: the sources', the platforms' own, and `dispatch.feedback`."""
        return self._decoder.topics

    def take(self, records: Sequence[SourceRecord]) -> IntakeBatch:
        """Every element of the records, as a report, feedback, a dead letter or a quiet reading, in stream order."""
        decoded = self._decoder.decode(records)
        read = _Batch(decoded)
        times_ms = [_time_ms(message.time) for message in decoded.messages]
        time_ms = np.asarray(times_ms, np.int64)
        ingested, marks = self._ingestion(records, decoded.places, times_ms)
        row_record = [number for number, _ in decoded.places]
        row_ingested = np.asarray([ingested[number] for number in row_record], np.int64)
        self._require_times(time_ms, row_ingested, read)

        mark_ms = np.asarray([marks[number] for number in row_record], np.int64)
        taken = self._locate_all(read, time_ms, mark_ms)
        rows = np.asarray(taken.rows, np.int64)
        taken.columns["ingested_ms"] = row_ingested[rows]
        taken.columns["mark_ms"] = mark_ms[rows]
        kept = ~read.marked([*read.refusals, *taken.quiet])[rows]
        placed_by = np.asarray(taken.columns.pop("placed_by"), np.int8)
        located = LocatedReports.from_columns(**taken.columns)
        self._guard_datums(located, placed_by, kept, rows, read)
        reports = located.take(kept)
        feedback = [
            self._feedback(
                row, int(np.searchsorted(rows[kept], row)), int(time_ms[row]), int(row_ingested[row]), decoded
            )
            for row in read.feedback
            if row not in read.refusals
        ]

        refused = [
            *decoded.refused,
            *(
                RefusedElement(decoded.places[row], decoded.exact_bytes(row), refusal)
                for row, refusal in read.refusals.items()
            ),
        ]
        refused.sort(key=lambda one: one.place)
        by_topic: dict[str, int] = {}
        for record, count in zip(records, decoded.counts, strict=True):
            by_topic[record.topic] = by_topic.get(record.topic, 0) + count
        by_source: dict[str, int] = {}
        for topic, count in by_topic.items():
            source = source_of(topic) or topic
            by_source[source] = by_source.get(source, 0) + count
        return IntakeBatch(
            reports,
            [_dead_letter(records[one.place[0]], one, ingested[one.place[0]]) for one in refused],
            len(records),
            sum(decoded.counts),
            len(taken.quiet) - sum(row in read.refusals for row in taken.quiet),
            by_source,
            [one.place[0] for one in refused],
            feedback,
            [row_record[row] for row in read.feedback if row not in read.refusals],
            taken.placed_by_name,
            taken.unplaced,
        )

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
        for row, message in enumerate(read.decoded.messages):
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
        messages: list[Any] = [read.decoded.messages[row] for row in rows]
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
            record = read.decoded.records[read.decoded.places[row][0]]
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
        decoded, refusals = read.decoded, read.refusals
        messages: list[Any] = [decoded.messages[row] for row in rows]
        statements: list[Statement] = []
        digests: list[bytes] = []
        contents: list[int] = []
        for row, message in zip(rows, messages, strict=True):
            one = self._statements.read(message)
            if isinstance(one, Refusal):
                refusals[row] = one  # what is wrong with the message itself goes before what is with its time
                one = NOTHING_SAID
            statements.append(one)
            # The lengths keep a platform and an id that run into one another apart from another such pair.
            platform = message.platform or ""
            name = f"{SOURCES[one.source]}\0{len(platform)}\0{platform}\0{message.id}"
            digests.append(hashlib.blake2b(name.encode(), digest_size=16).digest())
            contents.append(0 if one is NOTHING_SAID else _content(message, one))
        fields = zip(*statements, strict=True) if statements else ((),) * len(Statement._fields)
        columns: dict[str, Any] = dict(zip(Statement._fields, fields, strict=True))
        columns["report_id"] = [message.id for message in messages]
        columns["platform"] = [message.platform or "" for message in messages]
        keys = np.frombuffer(b"".join(digests), ">u8").reshape(-1, 2)
        columns["key_hi"], columns["key_lo"] = keys[:, 0], keys[:, 1]
        for name in ("device", "asset_id", "address"):
            columns[_KEY_OF[name]] = [self._place_keys.key(name, text) for text in columns[name]]
        columns["signature"] = signatures(columns["text"], self._vocabulary)
        columns["content"] = contents
        lon, lat, accuracy_m = (np.array(columns.pop(name), np.float64) for name in ("lon", "lat", "accuracy_m"))
        category = np.asarray(columns["category"], np.int32)
        crs = np.asarray(columns.pop("crs"), np.int8)
        quiet = columns.pop("quiet")
        by_name = np.asarray(columns.pop("by_name"), np.bool_)

        for number, name in enumerate(CRS):
            at = np.flatnonzero((crs == number) & ~np.isnan(lon))
            if number and len(at):
                lon[at], lat[at] = to_wgs84(lon[at], lat[at], name)

        for here in np.flatnonzero((category == NO_CATEGORY) & ~np.asarray(quiet, np.bool_)).tolist():
            if rows[here] not in refusals:
                refusals[rows[here]] = unknown_category(SOURCES[columns["source"][here]], messages[here])

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
        own = [message.lon is not None for message in messages]
        columns["placed_by"] = np.where(own, _DATUM_OF_CRS[crs], np.where(by_name, BY_NAME, REGISTRY))
        columns["accuracy_cm"] = np.rint(accuracy_m * 100).astype(np.int32)
        columns["cell"] = cell
        columns["time_ms"] = time_ms[np.asarray(rows, np.int64)]
        origins = [decoded.places[row] for row in rows]
        topics = [decoded.records[number].topic for number, _ in origins]
        numbers = {topic: self.terms.topic(topic) for topic in dict.fromkeys(topics)}
        columns["topic"] = [numbers[topic] for topic in topics]
        columns["partition"] = [decoded.records[number].partition for number, _ in origins]
        columns["offset"] = [decoded.records[number].offset for number, _ in origins]
        columns["index"] = [index for _, index in origins]
        tickets = ~read.marked(refusals)[rows] & (np.asarray(columns["source"]) == _HOTLINE)
        return _Located(
            list(rows),
            columns,
            {row for row, is_quiet in zip(rows, quiet, strict=True) if is_quiet},
            int((tickets & by_name).sum()),
            int((tickets & np.isnan(lon)).sum()),
        )

    def _guard_datums(self, located: LocatedReports, placed_by: _Tiny, kept: _Mask, rows: _Ints, read: _Batch) -> None:
        """Have the datum guard look at what is reported, and at what was placed outside of the city.

        Not at what is quiet: whether a quiet reading was located depends on its batch.
        """
        outside = [row for row, refusal in read.refusals.items() if refusal.reason is Reason.OUTSIDE_CITY]
        looked_at = (kept & (located.lon_e7 != NO_POSITION)) | read.marked(outside)[rows]
        group = self._group_of_category[located.category]
        group[located.reading_rows()] = -1  # most of them turn out to be no event
        self._guard.take(located, placed_by, group, np.flatnonzero(looked_at))

    def _refuse_feedback(self, message: FeedbackMessage) -> Refusal | None:
        if message.action not in _ACTION_WORDS:
            detail = f"{shown(message.action)} is none of {', '.join(_ACTION_WORDS)}"
            return Refusal(Reason.OUT_OF_RANGE, "action", detail)
        if incident_parts(self.pack.code, message.incident_id) is None:
            detail = f"{shown(message.incident_id)} is no incident of {self.pack.name}"
            return Refusal(Reason.UNKNOWN_INCIDENT, "incident_id", detail)
        if message.duplicate_of == message.incident_id:
            return Refusal(Reason.OUT_OF_RANGE, "duplicate_of", "is the incident itself; name the other one")
        if message.duplicate_of is not None and incident_parts(self.pack.code, message.duplicate_of) is None:
            detail = f"{shown(message.duplicate_of)} is no incident of {self.pack.name}"
            return Refusal(Reason.UNKNOWN_INCIDENT, "duplicate_of", detail)
        return None

    def _feedback(self, row: int, before: int, time_ms: int, ingested_ms: int, decoded: DecodedRecords) -> Feedback:
        message: Any = decoded.messages[row]
        number, index = decoded.places[row]
        record = decoded.records[number]
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
            decoded.exact_bytes(row),
            message.duplicate_of,
        )

    def _where_outside(self, lon: _Floats, lat: _Floats) -> list[str]:
        swapped = self.pack.grid.locate(lat, np.where(np.abs(lon) <= 90, lon, np.nan)) >= 0
        return [
            f"{x:.6f}, {y:.6f} (WGS-84) lies in no cell of {self.pack.name}"
            + ("; with lon and lat swapped it would" if is_swapped else "")
            for x, y, is_swapped in zip(lon.tolist(), lat.tolist(), swapped.tolist(), strict=True)
        ]


_KEY_OF = {"device": "device_key", "asset_id": "asset_key", "address": "address_key"}
_DATUM_OF_CRS = np.array([DATUMS.index("wgs84" if name == "cgcs2000" else name) for name in CRS], np.int8)
_IOT, _HOTLINE = SOURCES.index("iot"), SOURCES.index("hotline")
_MAX_FOUND_AT = 1_000_000
_ACTION_WORDS = [action.value for action in Action]


@dataclass(slots=True)
class _Batch:
    """A batch under way: what was decoded of it, and what became of its messages."""

    decoded: DecodedRecords
    refusals: dict[int, Refusal] = field(default_factory=dict)
    """By message."""
    feedback: list[int] = field(default_factory=list)
    """The messages that are feedback."""

    def marked(self, rows: Iterable[int]) -> _Mask:
        """Of all messages, which are among ``rows``."""
        marks = np.zeros(len(self.decoded.messages), np.bool_)
        marks[list(rows)] = True
        return marks


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


def _dead_letter(record: SourceRecord, one: RefusedElement, ingested_ms: int) -> DeadLetter:
    place = (record.topic, record.partition, record.offset, one.place[1])
    return DeadLetter(*place, record.key, one.value, *one.refusal, ingested_ms, record.platform or None)


def _content(message: Any, statement: Statement) -> int:
    """What the message says, as a number; not 0.

    In its own words, so that an edited pack amends nothing; but masked, for of a text of which only a caller's number
    is unknown the number could be found again by trying.
    """
    label = getattr(message, LABEL_FIELD[SOURCES[statement.source]]) or getattr(message, "metric", None)
    where = f"{message.lon}\0{message.lat}\0{message.crs}\0{message.asset_id}"
    return zlib.crc32(f"{label}\0{where}\0{statement.address}\0{statement.text}".encode()) or 1


def _time_ms(time: datetime | int) -> int:
    # Whole milliseconds, towards the past; by integers, for a float loses the last one.
    return time if isinstance(time, int) else (time - _EPOCH) // _MILLISECOND
