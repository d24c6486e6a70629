"""A small invented city for tests: its pack, made in memory, and a :class:`City` to which scenarios report.

The city is a square in open sea off Ghana, across the equator and the prime meridian, so longitudes and latitudes have
both signs.  Two counties; the western one is divided to the last cell, the eastern one is not divided at all.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from streams.blocks import decode_block, encode_blocks
from streams.dead_letters import DeadLetter
from streams.intake import Intake, IntakePack, SourceRecord
from streams.messages import FEEDBACK, TOPIC_OF_SOURCE, Incident
from streams.pack import CityPack, parse_pack
from streams.shard import Shard
from streams.terms import Terms

KEY = b"a key of these tests"
DAY_MS = 1_772_323_200_000
"""2026-03-01T00:00:00Z, the day on which scenarios happen."""
METERS_A_DEGREE = 110_574.276, 111_319.491
"""Of latitude and of longitude, at the equator (WGS-84)."""

CITY_TOML = """\
name = "试验市"
code = "990100"
timezone = "Asia/Shanghai"
levels = ["county", "street", "community", "grid"]
[source.iot]
accuracy_m = 5
[source.video]
accuracy_m = 50
[source.hotline]
accuracy_m = 100
witness = "caller"
[source.patrol]
accuracy_m = 10
fallback_category = "other"
"""

CATALOGUE_TOML = """\
[[category]]
code = "manhole"
name = "井盖缺失"
group = "covers"
radius_m = 40
window_s = 3600
accuracy_cap_m = 10
reopen_s = 3600
priority = 1
department = "排水处"
[category.labels]
iot = ["cover_open"]
video = ["manhole_open"]
hotline = ["井盖"]

[[category]]
code = "cover-noise"
name = "井盖异响"
group = "covers"
radius_m = 20
window_s = 7200
accuracy_cap_m = 0
priority = 3
department = "排水处"

[[category]]
code = "street-light"
name = "路灯不亮"
group = "lights"
radius_m = 60
window_s = 86400
priority = 3
department = "照明处"

[[category]]
code = "question"
name = "咨询"
group = "covers"
event = false

[[category]]
code = "other"
name = "其他"
group = "other"
radius_m = 30
window_s = 600
"""


def _edited(text: str, *changes: tuple[str, str]) -> str:
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


DOUBTING_CITY_TOML = _edited(
    CITY_TOML,
    ("accuracy_m = 5\n", "accuracy_m = 5\nconfidence = 0.9\n"),
    ("accuracy_m = 50\n", "accuracy_m = 50\nconfidence = 0.8\n"),
    ("accuracy_m = 10\n", "accuracy_m = 10\nconfidence = 0.95\n"),
)
"""How far sources are believed; of the hotline nobody says."""
DOUBTING_CATALOGUE_TOML = _edited(
    CATALOGUE_TOML,
    ('code = "manhole"\n', 'code = "manhole"\nconfirm_below = 0.85\n'),
    ('code = "cover-noise"\n', 'code = "cover-noise"\nconfirm_below = 0.7\n'),
    (
        'accuracy_cap_m = 0\npriority = 3\ndepartment = "排水处"\n',
        'accuracy_cap_m = 0\npriority = 3\ndepartment = "排水处"\n[category.confidence]\nvideo = 0.4\nhotline = 0.65\n',
    ),
)
"""What is weakly said of covers is suspected: of a manhole by one camera, of a noise by one call."""

DEVICES_CSV = """\
id,kind,lon,lat,crs,accuracy_m,asset_id,expected_interval_s
cover-1,manhole_cover,-0.001,0.001,,3,C-1,3600
cam-1,camera,-0.002,0.001,,40,,
"""


def _cell(code: str, level: str, parent: str | None, west: float, south: float, east: float, north: float) -> Any:
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    properties = {"code": code, "level": level, "parent": parent, "name": code}
    return {"type": "Feature", "properties": properties, "geometry": {"type": "Polygon", "coordinates": [ring]}}


def _grid(size_deg: float, middle: tuple[float, float]) -> str:
    x, y = middle
    s = size_deg
    cells = [
        _cell("990101", "county", None, x - s, y - s, x, y + s),
        _cell("990101001", "street", "990101", x - s, y - s, x, y + s),
        _cell("990101001001", "community", "990101001", x - s, y - s, x, y + s),
        _cell("990101001001001", "grid", "990101001001", x - s, y - s, x, y),
        _cell("990101001001002", "grid", "990101001001", x - s, y, x, y + s),
        _cell("990102", "county", None, x, y - s, x + s, y + s),
    ]
    return json.dumps({"type": "FeatureCollection", "features": cells})


def make_pack(
    *,
    city: str = CITY_TOML,
    catalogue: str = CATALOGUE_TOML,
    places: str = "",
    size_deg: float = 0.05,
    middle: tuple[float, float] = (0.0, 0.0),
    devices: str | None = None,
) -> CityPack:
    """The pack of the small city; ``middle`` puts the square elsewhere on Earth (the devices stay).

    ``devices`` are the lines of the registry and ``places`` those of `places.csv`, without their headings.
    """
    heading, ours = DEVICES_CSV.split("\n", 1)
    if devices is None:
        devices = ours if middle == (0.0, 0.0) else ""
    texts = {
        "city.toml": city,
        "grid.geojson": _grid(size_deg, middle),
        "catalogue.toml": catalogue,
        "devices.csv": f"{heading}\n{devices}",
        "places.csv": f"name,aliases,lon,lat,crs,accuracy_m,grid_code\n{places}",
    }
    return parse_pack({name: text.encode() for name, text in texts.items()})


def at_ms(clock: str) -> int:
    """``mm:ss``, ``hh:mm:ss`` or ``d hh:mm:ss`` of the scenario as Unix milliseconds."""
    days, _, rest = clock.rpartition(" ")
    parts = [int(part) for part in rest.split(":")]
    seconds = sum(part * 60**power for power, part in enumerate(reversed(parts)))
    return DAY_MS + (int(days or 0) * 86_400 + seconds) * 1000


@dataclass(frozen=True)
class Seen:
    """What a scenario expects of one incident."""

    category: str
    opened_ms: int
    sources: tuple[str, ...]
    reports: int
    repeats: int = 0


def opened(category: str, *, at: str, sources: list[str], reports: int | None = None, repeats: int = 0) -> Seen:
    """An incident of the category, opened then, to which each of the sources has reported (once, unless told)."""
    return Seen(category, at_ms(at), tuple(sorted(sources)), len(sources) if reports is None else reports, repeats)


@dataclass
class City:
    """A city to which sources report, in order, through intake, encoded blocks and one shard."""

    pack: CityPack = field(default_factory=make_pack)
    lateness_s: int = 600

    def __post_init__(self) -> None:
        self.intake = Intake(self.pack, KEY)
        self.shard = Shard(Terms(self.pack.code), lateness_s=self.lateness_s)
        self.outcomes: list[str] = []
        self.told: list[Incident] = []
        self.dead_letters: list[DeadLetter] = []
        self.log: list[bytes] = []
        self._number = 0

    def report(
        self,
        *,
        at: str,
        source: str,
        category: str,
        where: tuple[float, float] | None = (0.0, 0.0),
        report_id: str | None = None,
        heard: str | None = None,
        accuracy_m: float = 0,
        **extra: Any,
    ) -> str:
        """Report something ``where`` metres east and north of the middle; returns the outcome.

        ``heard``: when it reached us, if not at once.
        """
        self._number += 1
        fields: dict[str, Any] = {"id": report_id or f"r{self._number}", "time": at_ms(at), "accuracy_m": accuracy_m}
        if where is not None:
            fields["lon"] = where[0] / METERS_A_DEGREE[1]
            fields["lat"] = where[1] / METERS_A_DEGREE[0]
        fields |= {
            "iot": {"device_id": "d", "alarm": category},
            "video": {"camera_id": "c", "event_type": category, "confidence": 0.9},
            "hotline": {"category": category},
            "patrol": {"worker_id": "w", "category": category},
        }[source]
        value = json.dumps(fields | extra, ensure_ascii=False).encode()
        return self.send(SourceRecord(TOPIC_OF_SOURCE[source], 0, self._number, at_ms(heard or at), None, value))

    def read(
        self,
        *,
        at: str,
        value: float,
        metric: str = "depth",
        device: str = "cover-1",
        heard: str | None = None,
        **extra: Any,
    ) -> str:
        """A sensor says its value; returns what became of it, ``quiet`` if nothing."""
        self._number += 1
        fields = {"id": f"r{self._number}", "time": at_ms(at), "device_id": device, "metric": metric, "value": value}
        value_ = json.dumps(fields | extra).encode()
        return self.send(SourceRecord(TOPIC_OF_SOURCE["iot"], 0, self._number, at_ms(heard or at), None, value_))

    def say(
        self,
        action: str,
        incident_id: str,
        *,
        at: str,
        heard: str | None = None,
        say_id: str | None = None,
        duplicate_of: str | None = None,
    ) -> str:
        """Feedback of a dispatch centre; returns ``applied``, ``repeated`` or the reason of a dead letter."""
        self._number += 1
        fields = {"id": say_id or f"f{self._number}", "time": at_ms(at), "action": action, "incident_id": incident_id}
        if duplicate_of is not None:
            fields["duplicate_of"] = duplicate_of
        return self.send(SourceRecord(FEEDBACK, 0, self._number, at_ms(heard or at), None, json.dumps(fields).encode()))

    def send(self, record: SourceRecord) -> str:
        """Take a record through everything; returns what became of it (of its last element)."""
        batch = self.intake.take([record])
        became = [letter.reason.value for letter in batch.dead_letters] or ["quiet"]
        self.dead_letters += batch.dead_letters
        for data in encode_blocks(self.intake.terms, batch.reports, batch.feedback):
            self.log.append(data)
            decisions = self.shard.apply_block(decode_block(data, self.shard.terms))
            self.dead_letters += decisions.dead_letters
            became += [assignment.outcome for assignment in decisions.assignments]
            became += ["applied"] * decisions.feedback.total() + ["repeated"] * decisions.feedback_repeats.total()
            became += [letter.reason.value for letter in decisions.dead_letters]
            self.outcomes += [assignment.outcome for assignment in decisions.assignments]
            self.told += decisions.incidents
        self.shard.dedupe.check()
        return became[-1]

    def restart(self, *, intake: bool = False) -> None:
        """The fold dies and is made again of the log; with ``intake`` that remembers nothing either."""
        self.shard = Shard(Terms(self.pack.code), lateness_s=self.lateness_s)
        for data in self.log:
            self.shard.apply_block(decode_block(data, self.shard.terms), silent=True)
        if intake:
            self.intake = Intake(self.pack, KEY)

    def change(self, pack: CityPack) -> None:
        """The city's pack changes, as a running worker takes it up."""
        self.pack = pack
        self.intake.use(IntakePack(pack))

    def one(self) -> Incident:
        """The only incident."""
        (incident,) = self.shard.incidents()
        return incident

    def incidents(self) -> list[Seen]:
        """All incidents as they stand, in order of opening."""
        rows = self.shard.dedupe.incidents[: self.shard.dedupe.count]
        opened_ms = dict(zip(self.shard._incident_ids(rows), rows["opened_ms"].tolist(), strict=True))
        seen = [
            Seen(
                incident.category,
                opened_ms[incident.incident_id],
                tuple(sorted(incident.sources)),
                incident.report_count,
                incident.repeat_count,
            )
            for incident in self.shard.incidents()
        ]
        return sorted(seen, key=lambda one: (one.opened_ms, one.category))
