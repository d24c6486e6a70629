"""Messages that nobody can use: copies of good ones, each with one fault."""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from streams.error_model import BrokenModel
from streams.messages import SOURCES, Reason
from streams.pack import CityPack
from streams.simulated_chance import Chance
from streams.simulated_messages import Report

LABEL_FIELD = {"iot": "alarm", "video": "event_type", "hotline": "category", "patrol": "category"}
WITNESS_FIELD = {"iot": "device_id", "video": "camera_id", "hotline": "caller", "patrol": "worker_id"}
_REQUIRED = {
    "iot": ("time", "device_id"),
    "video": ("time", "camera_id", "event_type", "confidence"),
    "hotline": ("time", "category"),
    "patrol": ("time", "worker_id", "category", "lon", "lat"),
}
FieldsOf = Callable[[Report, str], dict[str, Any]]
_OVER_A_MEBIBYTE = (1 << 20) + 1000


@dataclass(frozen=True, slots=True)
class Wreck:
    """A broken copy of a report."""

    report: Report
    fields: Mapping[str, Any]
    value: bytes
    reason: Reason
    in_array: bool
    """Whether a gateway may put it among others."""


class Breakage:
    """Breaks copies of reports: at least one for every reason that the model and the pack allow."""

    def __init__(self, pack: CityPack, model: BrokenModel, chance: Chance) -> None:
        self._pack = pack
        self._model = model
        self._chance = chance

    def wrecks(self, reports: Sequence[Report], fields_of: FieldsOf) -> Iterator[Wreck]:
        """The broken copies of some of the reports; ``fields_of`` gives a report's fields under another id."""
        weights = {reason: weight for reason, weight in self._model.reasons.items() if weight > 0}
        if not weights or not self._model.share:
            return
        by_source: defaultdict[str, list[Report]] = defaultdict(list)
        for report in reports:
            by_source[report.source].append(report)
        number = 0
        for name, weight in weights.items():
            reason = Reason(name)
            able = [source for source in SOURCES if by_source[source] and self._can_break(source, reason)]
            count = max(1, round(self._model.share * len(reports) * weight / sum(weights.values())))
            if reason is Reason.TOO_LARGE:
                count = 1  # a recording of megabytes more would teach nothing more
            for _ in range(count if able else 0):
                report = self._chance.pick(by_source[self._chance.pick(able)])
                yield self._break(report, reason, number, fields_of)
                number += 1

    def _can_break(self, source: str, reason: Reason) -> bool:
        if reason is Reason.UNKNOWN_CATEGORY:
            return self._pack.sources[source].fallback_category is None
        if reason is Reason.TOO_LARGE:
            return source == "video"
        return reason is not Reason.UNKNOWN_DEVICE or source in ("iot", "video")

    def _break(self, report: Report, reason: Reason, number: int, fields_of: FieldsOf) -> Wreck:
        source = report.source
        fields = fields_of(report, f"X{number:06d}")
        whole = dict(fields)
        _, south, east, north = self._pack.grid.bounds
        if reason is Reason.MISSING_FIELD:
            del fields[self._chance.pick(_REQUIRED[source])]
        elif reason is Reason.WRONG_TYPE:
            fields[LABEL_FIELD[source]] = 17
        elif reason is Reason.OUT_OF_RANGE:
            fields.update(lon=200.5, lat=(south + north) / 2)
        elif reason is Reason.INVALID_TIME:
            fields["time"] = "2026-13-41T25:61:00Z"
        elif reason is Reason.TOO_OLD:
            fields["time"] = "1970-01-01T00:00:00Z"
        elif reason is Reason.FUTURE_TIME:
            fields["time"] = report.arrives_ms + 3 * 3_600_000
        elif reason is Reason.TOO_LARGE:
            # The picture itself in place of its address.
            picture = base64.b64encode(bytes(_OVER_A_MEBIBYTE * 3 // 4)).decode()
            fields["snapshot_url"] = f"data:image/jpeg;base64,{picture}"
        elif reason is Reason.UNSUPPORTED_CRS:
            fields["crs"] = "utm50"
        elif reason is Reason.UNKNOWN_CATEGORY:
            fields[LABEL_FIELD[source]] = f"unmapped_{number}"
        elif reason is Reason.UNKNOWN_DEVICE:
            fields[WITNESS_FIELD[source]] = f"unregistered-{number}"
            for name in ("lon", "lat"):
                fields.pop(name, None)
        elif reason is Reason.OUTSIDE_CITY:
            fields.update(lon=round(east + 0.5, 6), lat=round((south + north) / 2, 6))
        value = orjson.dumps(fields)
        if reason is Reason.MALFORMED_JSON:
            # Cut on the way: no gateway would put that into an array.
            value = value[: len(value) * 3 // 5]
        elif reason is Reason.NOT_AN_OBJECT:
            value = orjson.dumps(fields["id"])
        return Wreck(report, whole, value, reason, reason not in (Reason.MALFORMED_JSON, Reason.TOO_LARGE))
