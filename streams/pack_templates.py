"""What a new city pack starts from: every key with the reason for it, ready to be changed by hand."""

from __future__ import annotations

CITY = """\
# The city pack of {name}: who it is, how its grid is layered, and what holds for each source.

name = {name_toml}
# Part of every incident id; letters, digits, - and _.
code = "{code}"
# Working hours and holidays are counted in this zone; messages carry their own offsets.
timezone = "{timezone}"
# From outermost to innermost; the `level` of every cell in grid.geojson is one of these.
levels = [{levels}]

# What holds for a message that does not say otherwise.  accuracy_m is one sigma, metres; crs is the datum of positions
# (wgs84 cgcs2000 gcj02 bd09): a source that sends another one silently is off by 500 to 1,500 m.
[source.iot]
accuracy_m = 5
crs = "wgs84"
# How far one witness alone is believed, 0 to 1; two witnesses' odds multiply.
confidence = 0.9
# The field that names an independent witness: two readings of one device are one.  "id" makes each report its own
# witness, "none" the whole source a single one.
witness = "device_id"

[source.video]
accuracy_m = 50
crs = "wgs84"
# Analytics err about one time in five.
confidence = 0.8
witness = "camera_id"

[source.hotline]
# A spoken address that a map service turned into a point.
accuracy_m = 100
crs = "wgs84"
confidence = 0.7
witness = "caller"
# Labels nobody has mapped yet become this category; without the key they become dead letters.
# fallback_category = "06010"

[source.patrol]
accuracy_m = 15
crs = "wgs84"
confidence = 0.95
witness = "worker_id"
"""

CATALOGUE = """\
# The catalogue: which kinds of events there are, who handles them, and when two reports are one incident.
# Codes as in GB/T 47678.5 and a local range 90xxx for what that standard has no class for; any other codes will do.

[[category]]
code = "90001"
name = "道路积水"
# Only categories of one group can be the same event.
group = "water"
# Two reports within radius_m (plus their accuracy, at most accuracy_cap_m of it) and window_s are one incident.
radius_m = 80
window_s = 7200
accuracy_cap_m = 30
# A report after the closing, within this time, reopens the incident.
reopen_s = 86400
# 1 highest to 4.
priority = 1
department = "排水管理处"
[category.sla]
amount = 2
# urgent_hour (round the clock), work_hour, work_day, natural_day
unit = "urgent_hour"
[category.labels]
# What each source calls it; the code itself is understood from every source.
iot = ["water_level_high"]
video = ["waterlogging"]
hotline = ["道路积水"]
patrol = ["道路积水"]

[[category]]
code = "90006"
name = "下水道堵塞冒溢"
group = "water"
radius_m = 50
window_s = 86400
reopen_s = 259200
priority = 2
department = "排水管理处"
[category.sla]
amount = 8
unit = "work_hour"
[category.labels]
hotline = ["下水道堵塞"]
patrol = ["下水道堵塞冒溢"]

[[category]]
code = "06010"
name = "暴露垃圾"
group = "waste"
radius_m = 40
window_s = 86400
reopen_s = 259200
priority = 3
department = "环卫处"
# Below this confidence an incident stays suspected: in ClickHouse, but told to nobody until a second witness (another
# camera, a call) or somebody's feedback confirms it.  Without the key all are told.
# confirm_below = 0.65
[category.sla]
amount = 4
unit = "work_hour"
# How far one report of a source is believed about this category, where not as about any other.
# [category.confidence]
# video = 0.6
[category.labels]
video = ["garbage_exposed"]
hotline = ["暴露垃圾"]
patrol = ["暴露垃圾"]

[[category]]
code = "01001"
name = "供水井盖"
group = "cover"
radius_m = 25
window_s = 259200
reopen_s = 604800
priority = 1
department = "供水公司"
[category.sla]
amount = 1
unit = "urgent_hour"
[category.labels]
iot = ["cover_open"]
video = ["manhole_open"]
hotline = ["井盖缺失"]
patrol = ["井盖问题"]

[[category]]
code = "consultation"
name = "咨询"
group = "none"
# Answered, but no event in the city: no incident comes of it.
event = false
[category.labels]
hotline = ["咨询"]

# Readings become reports by rules: above (or below) a threshold for at least for_s; the alarm ends at clear, a little
# under (over) it, so that a value that trembles around the threshold raises one alarm and not hundreds.
[[rule]]
metric = "water_depth_cm"
# What the bounds are in: a reading that says another unit is refused.
unit = "cm"
above = 15
clear = 10
for_s = 120
category = "90001"
# Of several rules that one reading fulfils the highest priority reports; 1 to 4, by default the category's.
# priority = 1

# Pairs that people mistake for one another, 0 (never) to 1 (always).
[[related]]
a = "90001"
b = "90006"
similarity = 0.6
"""

DEVICES = """\
# Every sensor and camera whose messages carry no position of their own, one a line.  Only the first four columns must
# be filled.  kind: "camera", or what kind of sensor; crs: wgs84 cgcs2000 gcj02 bd09; accuracy_m: one sigma;
# expected_interval_s: how often it should report.  Example:
# wl-0001,water_level,{lon:.6f},{lat:.6f},wgs84,5,,300
id,kind,lon,lat,crs,accuracy_m,asset_id,expected_interval_s
"""

PLACES = """\
# Named places, for tickets that come with an address and no coordinates.  Several aliases are parted by |; accuracy_m
# is how far from the point the place may reach; grid_code (optional) is a cell of grid.geojson.  Example:
# 市民广场,广场|人民广场,{lon:.6f},{lat:.6f},wgs84,120,
name,aliases,lon,lat,crs,accuracy_m,grid_code
"""
