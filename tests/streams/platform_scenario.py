"""The small city of `city_scenario` with platforms that name their fields their own way, of each source one or two."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import msgspec
from city_scenario import CATALOGUE_TOML, CITY_TOML, at_ms, make_pack

from streams.messages import SourceMessage
from streams.pack import CityPack
from streams.platforms import EnvelopeReader, PlatformReader
from streams.readings import ReadingRules
from streams.refusal import Refusal

NOON_MS = at_ms("12:00:00")

PLATFORMS = """
[platform.things]  # readings and alarms of one kind of message, nested, seconds, GCJ-02
source = "iot"
crs = "gcj02"
time_format = "unix_s"
[platform.things.fields]
id = "head.msg"
time = "head.ts"
device_id = "head.dev.code"
lon = "head.gps[0]?"
lat = "head.gps[1]?"
accuracy_m = "head.err?"
metric = "data.item?"
value = "data.val?"
unit = "data.unit?"
alarm = "alarm.code?"
state = "alarm.status?"
[platform.things.scale]
accuracy_m = 0.01
[platform.things.units]
mm = { unit = "cm", factor = 0.1 }
[platform.things.codes]
metric = { WL = "depth" }
alarm = { 17 = "cover_open", 0 = "" }
state = { 0 = "cleared", 1 = "raised" }

[platform.eyes]  # in envelopes, local times, percent, BD-09
source = "video"
crs = "bd09"
time_format = "%Y-%m-%d %H:%M:%S"
elements = "body.list"
[platform.eyes.fields]
id = "no"
time = "at"
camera_id = "^head.camera"
event_type = "kind"
confidence = "sure"
lon = "x?"
lat = "y?"
snapshot_url = "pics[0].url?"
[platform.eyes.scale]
confidence = 0.01
[platform.eyes.codes.event_type]
E17 = "manhole_open"

[platform.counts]  # no ids of its own, one metric, no word of its unit
source = "iot"
[platform.counts.fields]
id = ["dev", "time"]
time = "time"
device_id = "dev"
value = "v"
platform = "vendor?"
[platform.counts.constants]
metric = "depth"
unit = "mm"
[platform.counts.units.mm]
unit = "cm"
factor = 0.1

[platform.calls]
source = "hotline"
time_format = "unix_ms"
[platform.calls.fields]
id = "单号"
time = "time"
category = "诉求.类别"
text = "诉求.内容?"
caller = "电话?"
crs = "坐标系?"
lon = "位置[0]?"
lat = "位置[1]?"
[platform.calls.codes.crs]
1 = "wgs84"
2 = "gcj02"

[platform.rows]  # numbered within a sheet, and the sheet comes first
source = "hotline"
time_format = "unix_ms"
elements = "rows"
[platform.rows.fields]
id = ["^sheet", "n"]
time = "t"
category = "c"
text = "nr?"
caller = "lxr?"

[platform.walks]
source = "patrol"
[platform.walks.fields]
id = "id"
time = "time"
worker_id = "who"
category = "what"
lon = "lon"
lat = "lat"
"""
RULE = '[[rule]]\nmetric = "depth"\nunit = "cm"\nabove = 15\nclear = 10\nfor_s = 0\ncategory = "other"\n'


def pack_with(platforms: str = PLATFORMS, *, rules: str = RULE, **keywords: Any) -> CityPack:
    """The small city with these platforms, and with a rule."""
    return make_pack(city=CITY_TOML + platforms, catalogue=CATALOGUE_TOML + rules, **keywords)


PACK = pack_with()
"""Of the small city: off Ghana, where no datum moves a point."""


def read(name: str, value: Any, pack: CityPack = PACK) -> SourceMessage | Refusal:
    """A message alone, or the only element of an envelope."""
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    mapping = pack.platforms[name]
    units = ReadingRules.from_pack(pack).unit_of_metric
    if mapping.elements is None:
        return PlatformReader(mapping, pack.timezone, units).read(raw)
    envelope = EnvelopeReader(mapping, pack.timezone, units).open(raw)
    if isinstance(envelope, Refusal):
        return envelope
    (element,) = envelope.elements
    return envelope.read(bytes(element))


def fields_of(message: SourceMessage | Refusal) -> dict[str, Any]:
    """What a message says, without what it does not."""
    assert not isinstance(message, Refusal), message
    said = msgspec.structs.asdict(message)
    if isinstance(said["time"], datetime):
        said["time"] = round(said["time"].timestamp() * 1000)
    return {name: value for name, value in said.items() if value is not None}
