"""What the message of a source says, by the pack's rules: where, of which category, by which witness.

A message is read alone, in the words of its source; what needs columns or the city's cells comes after
(:mod:`.intake`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from geo.datum import CRS
from geo.gazetteer import Gazetteer
from streams.messages import (
    LABEL_FIELD,
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
from streams.refusal import Refusal, shown
from streams.reports import Reading
from streams.terms import PackTerms
from streams.witnesses import SOURCE_ITSELF

NO_CATEGORY = -1
"""The category of a message whose label the catalogue does not know."""
_MAX_TEXT = 500
"""Characters of address and of text that travel on; a longer one is cut."""
_CRS_NUMBER = {name: number for number, name in enumerate(CRS)}
_DEVICE_FIELD = {"iot": "device_id", "video": "camera_id"}


class Statement(NamedTuple):
    """What a message says, before columns.

    ``source`` is an index into `streams.messages.SOURCES`, ``category`` one of the pack's or `NO_CATEGORY`; ``lon`` and
    ``lat`` are in the datum ``crs``, an index into `geo.datum.CRS`, NaN where it has no position.  ``quiet``: it says
    that nothing is the matter, or nothing that a rule asks for.  ``by_name``: its position is that of a place it names.
    """

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


NOTHING_SAID = Statement(0, NO_CATEGORY, np.nan, np.nan, 0, 0.0, np.nan, "", None, "", "", "", "", False, False)


class StatementReader:
    """Reads the messages of all sources by one pack; ``hasher`` hides its callers."""

    def __init__(self, pack: CityPack, terms: PackTerms, gazetteer: Gazetteer, hasher: CallerHasher) -> None:
        self._pack = pack
        self._rules_of_metric = terms.rules_of_metric
        self._gazetteer = gazetteer
        self._hasher = hasher
        self._sources = {source: _source_rules(pack, source) for source in SOURCES}

    def read(self, message: SourceMessage) -> Statement | Refusal:
        """What the message says, or what is wrong with it.

        A label that nobody has mapped is the source's fallback category, `NO_CATEGORY` where it has none.
        """
        return _READERS[type(message)](self, message)

    def _read_iot(self, message: IotMessage) -> Statement | Refusal:
        if message.state not in (None, "raised", "cleared"):
            return Refusal(Reason.OUT_OF_RANGE, "state", f"{shown(message.state)} is neither raised nor cleared")
        if message.alarm is None:
            if message.metric is None:
                return Refusal(Reason.MISSING_FIELD, "alarm", "neither an alarm nor a metric with its value")
            if message.value is None:
                return Refusal(Reason.MISSING_FIELD, "value", "a metric without its value")
            rules = self._rules_of_metric.get(message.metric, ())
            # Without rules it was never sent to be judged; it is read all the same, for what may be wrong with it.
            reading = Reading(message.metric, message.value, rules) if rules else None
            return self._read("iot", message, None, message.device_id, reading=reading, quiet=not rules)
        return self._read("iot", message, message.alarm, message.device_id, quiet=message.state == "cleared")

    def _read_video(self, message: VideoMessage) -> Statement | Refusal:
        return self._read("video", message, message.event_type, message.camera_id, confidence=message.confidence)

    def _read_hotline(self, message: HotlineMessage) -> Statement | Refusal:
        return self._read("hotline", message, message.category, "", message.address, message.text)

    def _read_patrol(self, message: PatrolMessage) -> Statement | Refusal:
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
    ) -> Statement | Refusal:
        """What all sources share: datum, position, accuracy, category, witness."""
        rules = self._sources[source]
        crs = rules.crs if message.crs is None else _CRS_NUMBER.get(message.crs, -1)
        if crs < 0:
            return Refusal(Reason.UNSUPPORTED_CRS, "crs", f"{shown(message.crs)} is none of {', '.join(CRS)}")
        lon, lat, accuracy_m, asset_id = message.lon, message.lat, message.accuracy_m, message.asset_id
        if (lon is None) != (lat is None):
            missing, given = ("lon", "lat") if lon is None else ("lat", "lon")
            return Refusal(Reason.MISSING_FIELD, missing, f"{given} without {missing}")
        by_name = False
        if device_id:
            device = self._pack.devices.get(device_id)
            if device is not None:
                asset_id = asset_id or device.asset_id
                accuracy_m = device.accuracy_m if accuracy_m is None else accuracy_m
                if lon is None:
                    lon, lat, crs = device.lon, device.lat, 0  # the registry is in WGS-84 once read
            elif lon is None:
                detail = f"{shown(device_id)} is not in devices.csv and the message has no position"
                return Refusal(Reason.UNKNOWN_DEVICE, _DEVICE_FIELD[source], detail)
        elif lon is None and (address or text):
            place = self._gazetteer.place(address or "", text or "")
            if place is not None:
                lon, lat, accuracy_m, crs, by_name = place.lon, place.lat, place.accuracy_m, 0, True
        category = NO_CATEGORY
        if reading is not None:
            category = reading.rules[0][1]
        elif label is not None:
            category = self._pack.category_of(source, label)
            if category == NO_CATEGORY:
                category = rules.fallback
        return Statement(
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
        if name is None:
            return SOURCE_ITSELF
        who = getattr(message, name, None)
        if not who:
            return ""
        return self._hasher.hash(who) if name == "caller" else str(who)


def unknown_category(source: str, message: SourceMessage) -> Refusal:
    """The refusal of a message whose label the catalogue does not know."""
    field = LABEL_FIELD[source]
    detail = f"{shown(getattr(message, field))} is no label of {source} in the catalogue"
    return Refusal(Reason.UNKNOWN_CATEGORY, field, detail)


class _SourceRules(NamedTuple):
    """What the pack says of a source, looked up once."""

    number: int
    entry: SourceEntry
    crs: int
    fallback: int


def _source_rules(pack: CityPack, source: str) -> _SourceRules:
    entry = pack.sources[source]
    fallback = NO_CATEGORY if entry.fallback_category is None else pack.category_index(entry.fallback_category)
    return _SourceRules(SOURCES.index(source), entry, _CRS_NUMBER[entry.crs], fallback)


_READERS: dict[type[SourceMessage], Callable[[StatementReader, Any], Statement | Refusal]] = {
    IotMessage: StatementReader._read_iot,
    VideoMessage: StatementReader._read_video,
    HotlineMessage: StatementReader._read_hotline,
    PatrolMessage: StatementReader._read_patrol,
}
