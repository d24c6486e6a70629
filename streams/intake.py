"""Intake: raw Kafka records in, located reports and dead letters out.

One pass over a batch: decode (typed, whole values at once), then in columns the datum, the times, the category, the
position and the geo-fence.  Every element that goes in comes out as exactly one of: a report, a dead letter, or a
quiet element (a reading that raised nothing, a cleared alarm).

The fast path trusts msgspec's typed decoding; only what it refuses is looked at field by field (:mod:`.refusal`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec
import numpy as np

from geo.datum import CRS, to_wgs84
from streams.dead_letters import DeadLetter
from streams.messages import (
    MESSAGE_OF_SOURCE,
    SOURCE_OF_TOPIC,
    SOURCES,
    HotlineMessage,
    IotMessage,
    PatrolMessage,
    Reason,
    SourceMessage,
    VideoMessage,
)
from streams.pack import CityPack, SourceEntry
from streams.privacy import CallerHasher, mask_beginning
from streams.refusal import Refusal, explain_refusal
from streams.reports import NO_POSITION, LocatedReports

_Floats = np.ndarray[Any, np.dtype[np.float64]]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_CREDIBLE_JUMP_MS = 366 * 86_400_000
_MAX_TEXT = 500
"""Characters of address and of text that travel on; a longer one is cut."""
_MAX_SHOWN = 64
"""Characters of a wrong value that its refusal shows."""
_MAX_BRACKETS = 1_000_000
"""An array that nests too deeply for the decoder and has more than this is not split; that would take seconds."""


class SourceRecord(NamedTuple):
    """One Kafka record of a source topic.  ``topic`` is without prefix; without a timestamp its own `time` counts."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int | None
    key: bytes | None
    value: bytes


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
    """What became of a batch of records: ``elements == len(reports) + len(dead_letters) + quiet_readings``."""

    reports: LocatedReports
    dead_letters: list[DeadLetter]
    records: int
    elements: int
    quiet_readings: int
    elements_by_source: dict[str, int] = field(default_factory=dict)


class Intake:
    """Turns records of the source topics into located reports of one city.

    ``one_clock``: a recording is replayed as one stream, so its source partitions share one mark; the worker keeps one
    for each partition.
    """

    def __init__(self, pack: CityPack, key: bytes, limits: IntakeLimits | None = None, *, one_clock: bool = False):
        self.pack = pack
        self.limits = limits or IntakeLimits()
        self.marks: dict[tuple[str, int], int] = {}
        self._doubted_ms: dict[tuple[str, int], int] = {}
        self._one_clock = one_clock
        self._hasher = CallerHasher(key)
        self._sources = {source: _source_rules(pack, source) for source in SOURCES}
        self._decoders = {
            topic: (
                msgspec.json.Decoder(MESSAGE_OF_SOURCE[source]),
                msgspec.json.Decoder(list[MESSAGE_OF_SOURCE[source]]),  # type: ignore[valid-type]
            )
            for topic, source in SOURCE_OF_TOPIC.items()
        }
        self._raw_list = msgspec.json.Decoder(list[msgspec.Raw])

    def take(self, records: Sequence[SourceRecord]) -> IntakeBatch:
        """Every element of the records, as a report, a dead letter or a quiet reading, in stream order."""
        messages: list[SourceMessage] = []
        places: list[tuple[int, int]] = []  # (record number, element index) of each message
        refused: list[tuple[int, int, bytes, Refusal]] = []
        raws: dict[int, Sequence[msgspec.Raw | bytes]] = {}
        elements_of: list[int] = []
        for number, record in enumerate(records):
            elements_of.append(self._decode(number, record, messages, places, refused, raws))

        times_ms = [_time_ms(message.time) for message in messages]
        ingested, marks = self._ingestion(records, places, times_ms)
        row_record = [number for number, _ in places]
        row_ingested = np.asarray([ingested[number] for number in row_record], np.int64)
        row_marks = np.asarray([marks[number] for number in row_record], np.int64)
        columns, refusals, quiet = self._locate(messages, np.asarray(times_ms, np.int64), row_ingested, records, places)

        for row, refusal in refusals.items():
            number, index = places[row]
            refused.append((number, index, self._exact_bytes(number, index, records[number].value, raws), refusal))
        refused.sort(key=lambda item: item[:2])
        dead_letters = [
            _dead_letter(records[number], index, value, refusal, ingested[number])
            for number, index, value, refusal in refused
        ]
        kept = np.ones(len(messages), bool)
        kept[list(refusals)] = False
        kept &= ~quiet
        columns["ingested_ms"] = row_ingested
        columns["mark_ms"] = row_marks
        reports = LocatedReports.from_columns(**columns).take(kept)
        by_source: dict[str, int] = {}
        for record, count in zip(records, elements_of, strict=True):
            source = SOURCE_OF_TOPIC.get(record.topic, record.topic)
            by_source[source] = by_source.get(source, 0) + count
        quiet_readings = int(quiet.sum()) - sum(bool(quiet[row]) for row in refusals)
        return IntakeBatch(
            reports,
            dead_letters,
            len(records),
            sum(elements_of),
            quiet_readings,
            by_source,
        )

    # ------------------------------------------------------------------------------------------------- decode

    def _decode(
        self,
        number: int,
        record: SourceRecord,
        messages: list[SourceMessage],
        places: list[tuple[int, int]],
        refused: list[tuple[int, int, bytes, Refusal]],
        raws: dict[int, Sequence[msgspec.Raw | bytes]],
    ) -> int:
        """Append the record's messages and refusals; returns how many elements it has."""
        value = record.value
        decoders = self._decoders.get(record.topic)
        if decoders is None:
            raise ValueError(f"{record.topic} is not a source topic; known: {', '.join(self._decoders)}")
        is_array = value.lstrip(b" \t\r\n")[:1] == b"["
        limit = self.limits.max_value_bytes if is_array else self.limits.max_message_bytes
        if len(value) > limit:
            refusal = Refusal(Reason.TOO_LARGE, None, f"{len(value):,} bytes, at most {limit:,}")
            refused.append((number, 0, value, refusal))
            return 1
        one, many = decoders
        try:
            if not is_array:
                messages.append(one.decode(value))
                places.append((number, 0))
                return 1
            if len(value) <= self.limits.max_message_bytes:
                decoded = many.decode(value)
                messages.extend(decoded)
                places.extend((number, index) for index in range(len(decoded)))
                return len(decoded)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            if not is_array:
                refused.append((number, 0, value, explain_refusal(value, one)))
                return 1
        return self._decode_each(number, value, one, messages, places, refused, raws)

    def _decode_each(
        self,
        number: int,
        value: bytes,
        one: msgspec.json.Decoder[Any],
        messages: list[SourceMessage],
        places: list[tuple[int, int]],
        refused: list[tuple[int, int, bytes, Refusal]],
        raws: dict[int, Sequence[msgspec.Raw | bytes]],
    ) -> int:
        """An array whose elements must be told apart: only the bad ones are refused, each with its exact bytes."""
        try:
            elements: Sequence[msgspec.Raw | bytes] = self._raw_list.decode(value)
        except RecursionError:
            split = _split_array(value)
            if split is None:
                refused.append((number, 0, value, Refusal(Reason.MALFORMED_JSON, None, "nested too deeply")))
                return 1
            elements = split
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            refused.append((number, 0, value, Refusal(Reason.MALFORMED_JSON, None, str(error))))
            return 1
        raws[number] = elements
        for index, element in enumerate(elements):
            raw = bytes(element)
            if len(raw) > self.limits.max_message_bytes:
                detail = f"{len(raw):,} bytes, at most {self.limits.max_message_bytes:,}"
                refused.append((number, index, raw, Refusal(Reason.TOO_LARGE, None, detail)))
                continue
            try:
                messages.append(one.decode(raw))
                places.append((number, index))
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                refused.append((number, index, raw, explain_refusal(raw, one)))
        return len(elements)

    def _exact_bytes(
        self, number: int, index: int, value: bytes, raws: dict[int, Sequence[msgspec.Raw | bytes]]
    ) -> bytes:
        """The bytes of one element as they came; an array that decoded at once is split only now."""
        if value.lstrip(b" \t\r\n")[:1] != b"[":
            return value
        if number not in raws:
            raws[number] = self._raw_list.decode(value)
        return bytes(raws[number][index])

    # -------------------------------------------------------------------------------------------------- times

    def _ingestion(
        self, records: Sequence[SourceRecord], places: Sequence[tuple[int, int]], times_ms: Sequence[int]
    ) -> tuple[list[int], list[int]]:
        """Ingestion time and source-partition mark of each record, advancing the marks."""
        newest_time: dict[int, int] = {}
        if any(record.timestamp_ms is None for record in records):
            for (number, _), time_ms in zip(places, times_ms, strict=True):
                newest_time[number] = max(newest_time.get(number, time_ms), time_ms)
        ingested: list[int] = []
        marks: list[int] = []
        for number, record in enumerate(records):
            clock = ("", 0) if self._one_clock else (record.topic, record.partition)
            mark = self.marks.get(clock)
            at_ms = record.timestamp_ms
            if at_ms is not None:
                mark = at_ms if mark is None else max(mark, at_ms)
            elif number in newest_time:
                at_ms = newest_time[number]
                mark = self._mark_by_own_time(clock, mark, at_ms)
            else:
                # A value without any readable time is taken to have come when its stream was last heard.
                at_ms = mark or 0
            if mark is not None:
                self.marks[clock] = mark
            ingested.append(at_ms)
            marks.append(mark or 0)
        return ingested, marks

    def _mark_by_own_time(self, clock: tuple[str, int], mark: int | None, own_ms: int) -> int:
        """The mark after a record that came, for want of a timestamp, at its own time.

        One line of the year 2099 must not make all that follows late: a jump of more than a year is believed only when
        the next such record is there too.
        """
        doubted_ms = self._doubted_ms.pop(clock, None)
        if mark is None or own_ms <= mark + _CREDIBLE_JUMP_MS:
            return own_ms if mark is None else max(mark, own_ms)
        if doubted_ms is not None and abs(own_ms - doubted_ms) <= _CREDIBLE_JUMP_MS:
            return own_ms
        self._doubted_ms[clock] = own_ms
        return mark

    # ------------------------------------------------------------------------------------------------- locate

    def _locate(
        self,
        messages: Sequence[SourceMessage],
        time_ms: np.ndarray[Any, np.dtype[np.int64]],
        ingested_ms: np.ndarray[Any, np.dtype[np.int64]],
        records: Sequence[SourceRecord],
        places: Sequence[tuple[int, int]],
    ) -> tuple[dict[str, Any], dict[int, Refusal], np.ndarray[Any, np.dtype[np.bool_]]]:
        """Columns of all messages, the refusals by row, and which rows are quiet."""
        refusals: dict[int, Refusal] = {}
        reads: list[_Read] = []
        digests: list[bytes] = []
        for row, message in enumerate(messages):
            read = _READERS[type(message)](self, message)
            if isinstance(read, Refusal):
                refusals[row] = read
                read = _NOTHING
            reads.append(read)
            # The lengths keep a platform and an id that run into one another apart from another such pair.
            platform = message.platform or ""
            name = f"{SOURCES[read.source]}\0{len(platform)}\0{platform}\0{message.id}"
            digests.append(hashlib.blake2b(name.encode(), digest_size=16).digest())
        columns: dict[str, Any] = {name: [read[at] for read in reads] for at, name in enumerate(_Read._fields)}
        columns["report_id"] = [message.id for message in messages]
        keys = np.frombuffer(b"".join(digests), ">u8").reshape(-1, 2)
        columns["key_hi"], columns["key_lo"] = keys[:, 0], keys[:, 1]
        lon, lat, accuracy_m = (np.array(columns.pop(name), np.float64) for name in ("lon", "lat", "accuracy_m"))
        category = np.asarray(columns["category"], np.int32)
        crs = np.asarray(columns.pop("crs"), np.int8)
        quiet = np.asarray(columns.pop("quiet"), np.bool_)

        for number, name in enumerate(CRS):
            rows = np.flatnonzero((crs == number) & ~np.isnan(lon))
            if number and len(rows):
                lon[rows], lat[rows] = to_wgs84(lon[rows], lat[rows], name)

        ahead_ms = time_ms - ingested_ms
        for row in np.flatnonzero(ahead_ms > self.limits.future_s * 1000).tolist():
            detail = f"{ahead_ms[row] / 1000:,.0f} s after its ingestion, at most {self.limits.future_s:,}"
            refusals.setdefault(row, Refusal(Reason.FUTURE_TIME, "time", detail))
        for row in np.flatnonzero(-ahead_ms > self.limits.too_old_s * 1000).tolist():
            detail = f"{-ahead_ms[row] / 1000:,.0f} s before its ingestion, at most {self.limits.too_old_s:,}"
            refusals.setdefault(row, Refusal(Reason.TOO_OLD, "time", detail))
        for row in np.flatnonzero((category == _UNKNOWN) & ~quiet).tolist():
            if row not in refusals:
                source = SOURCES[columns["source"][row]]
                label = getattr(messages[row], _LABEL_FIELD[source])
                detail = f"{_shown(label)} is no label of {source} in the catalogue"
                refusals[row] = Refusal(Reason.UNKNOWN_CATEGORY, _LABEL_FIELD[source], detail)

        cell = np.full(len(messages), -1, np.int32)
        placed = np.flatnonzero(~np.isnan(lon))
        cell[placed] = self.pack.grid.locate(lon[placed], lat[placed])
        outside = placed[cell[placed] < 0]
        if len(outside):
            for row, detail in zip(outside.tolist(), self._where_outside(lon[outside], lat[outside]), strict=True):
                refusals.setdefault(row, Refusal(Reason.OUTSIDE_CITY, "lon", detail))

        with np.errstate(invalid="ignore"):
            columns["lon_e7"] = np.where(np.isnan(lon), NO_POSITION, np.rint(lon * 1e7)).astype(np.int32)
            columns["lat_e7"] = np.where(np.isnan(lat), NO_POSITION, np.rint(lat * 1e7)).astype(np.int32)
        columns["accuracy_cm"] = np.rint(accuracy_m * 100).astype(np.int32)
        columns["cell"] = cell
        columns["time_ms"] = time_ms
        columns["partition"] = [records[number].partition for number, _ in places]
        columns["offset"] = [records[number].offset for number, _ in places]
        columns["index"] = [index for _, index in places]
        return columns, refusals, quiet

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
        quiet = message.alarm is None or message.state == "cleared"
        return self._read("iot", message, message.alarm, message.device_id, quiet=quiet)

    def _read_video(self, message: VideoMessage) -> _Read | Refusal:
        return self._read("video", message, message.event_type, message.camera_id)

    def _read_hotline(self, message: HotlineMessage) -> _Read | Refusal:
        return self._read("hotline", message, message.category, None, message.address, message.text)

    def _read_patrol(self, message: PatrolMessage) -> _Read | Refusal:
        return self._read("patrol", message, message.category, None, message.address, message.text)

    def _read(
        self,
        source: str,
        message: SourceMessage,
        label: str | None,
        device_id: str | None,
        address: str | None = None,
        text: str | None = None,
        *,
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
        if device_id is not None:
            device = self.pack.devices.get(device_id)
            if device is not None:
                asset_id = asset_id or device.asset_id
                accuracy_m = device.accuracy_m if accuracy_m is None else accuracy_m
                if lon is None:
                    lon, lat, crs = device.lon, device.lat, 0  # the registry is in WGS-84 once read
            elif lon is None:
                detail = f"{_shown(device_id)} is not in devices.csv and the message has no position"
                return Refusal(Reason.UNKNOWN_DEVICE, _DEVICE_FIELD[source], detail)
        category = _UNKNOWN
        if label is not None:
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
            self._witness(rules.entry.witness, message),
            asset_id or "",
            mask_beginning(address, _MAX_TEXT) if address else "",
            mask_beginning(text, _MAX_TEXT) if text else "",
            quiet,
        )

    def _witness(self, name: str | None, message: SourceMessage) -> str:
        who = getattr(message, name, None) if name else None
        if not who:
            return ""
        return self._hasher.hash(who) if name == "caller" else str(who)


_UNKNOWN = -1
_CRS_NUMBER = {name: number for number, name in enumerate(CRS)}
_DEVICE_FIELD = {"iot": "device_id", "video": "camera_id"}
_LABEL_FIELD = {"iot": "alarm", "video": "event_type", "hotline": "category", "patrol": "category"}


class _Read(NamedTuple):
    """What a message says, before columns: ``lon`` and ``lat`` in the datum ``crs``, NaN where it has no position."""

    source: int
    category: int
    lon: float
    lat: float
    crs: int
    accuracy_m: float
    witness: str
    asset_id: str
    address: str
    text: str
    quiet: bool


_NOTHING = _Read(0, _UNKNOWN, np.nan, np.nan, 0, 0.0, "", "", "", "", False)


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
