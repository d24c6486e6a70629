"""The mappings of a pack: what a good one becomes, and every fault of a bad one with its line."""

from __future__ import annotations

import pytest
from city_scenario import CATALOGUE_TOML, CITY_TOML, make_pack
from hypothesis import given, settings
from hypothesis import strategies as st
from platform_scenario import PLATFORMS, RULE

from streams.intake import Intake, SourceRecord
from streams.pack import PackError, parse_pack
from streams.pack_check import check_pack
from streams.pack_entries import Fault, FieldPath, PlatformMapping, UnitConversion

GRID = (
    '{"type":"FeatureCollection","features":[\n{"type":"Feature","properties":{"code":"1","level":"county",'
    '"parent":null,"name":"x"},"geometry":{"type":"Polygon","coordinates":[[[0,0],[1,0],[1,1],[0,1],[0,0]]]}}\n]}'
)
HEAD = 'name = "试验市"\ncode = "990100"\ntimezone = "Asia/Shanghai"\nlevels = ["county"]\n'

TWO = """\
[platform.things]
source = "iot"
crs = "gcj02"
time_format = "%Y-%m-%d %H:%M:%S"
time_zone = "UTC"
[platform.things.fields]
id = "msg"
time = "ts"
device_id = "dev.code"
lon = "gps[0]?"
lat = "gps[1]?"
accuracy_m = "err?"
metric = "data.item?"
value = "data.val?"
alarm = "alarm?"
[platform.things.constants]
unit = "mm"
[platform.things.scale]
accuracy_m = 0.01
[platform.things.units.mm]
unit = "cm"
factor = 0.1
offset = 1
[platform.things.codes.metric]
WL = "depth"
[platform.things.codes.alarm]
17 = "cover_open"
18 = "manhole"
0 = ""

[platform.eyes]
source = "video"
elements = "body.list"
[platform.eyes.fields]
id = ["no", "^batch"]
time = "at"
camera_id = "^head.camera"
event_type = "kind"
confidence = "sure"
"""
FIRST = HEAD.count("\n") + 1
"""The line of the text above on which the platforms begin."""


def files_of(platforms: str, city: str = HEAD) -> dict[str, bytes]:
    texts = {"city.toml": city + platforms, "grid.geojson": GRID, "catalogue.toml": CATALOGUE_TOML + RULE}
    return {name: text.encode() for name, text in texts.items()}


def faults_of(platforms: str, *, city: str = HEAD) -> list[Fault]:
    return check_pack(files_of(platforms, city))


def test_every_key_arrives_as_written():
    assert faults_of(TWO) == []
    path = FieldPath.parse
    pack = make_pack(city=CITY_TOML + TWO, catalogue=CATALOGUE_TOML + RULE)
    assert pack.platforms == {
        "things": PlatformMapping(
            name="things",
            source="iot",
            crs="gcj02",
            time_format="%Y-%m-%d %H:%M:%S",
            time_zone="UTC",
            fields={
                "id": (path("msg"),), "time": (path("ts"),), "device_id": (path("dev.code"),),
                "lon": (path("gps[0]?"),), "lat": (path("gps[1]?"),), "accuracy_m": (path("err?"),),
                "metric": (path("data.item?"),), "value": (path("data.val?"),), "alarm": (path("alarm?"),),
            },
            constants={"unit": "mm"},
            scale={"accuracy_m": 0.01},
            units={"mm": (UnitConversion("cm", 0.1, 1.0),)},
            codes={"metric": {"WL": "depth"}, "alarm": {"17": "cover_open", "18": "manhole", "0": ""}},
        ),
        "eyes": PlatformMapping(
            name="eyes",
            source="video",
            elements=path("body.list"),
            fields={
                "id": (path("no"), path("^batch")), "time": (path("at"),), "camera_id": (path("^head.camera"),),
                "event_type": (path("kind"),), "confidence": (path("sure"),),
            },
        ),
    }  # fmt: skip


def test_the_platforms_of_the_tests_are_flawless():
    assert faults_of(PLATFORMS, city=CITY_TOML.replace('["county", "street", "community", "grid"]', '["county"]')) == []


@pytest.mark.parametrize(
    ("text", "steps", "in_envelope", "may_be_missing"),
    [
        ("a", ("a",), False, False),
        ("a.b[0][12].c?", ("a", "b", 0, 12, "c"), False, True),
        ("^电话.编号", ("电话", "编号"), True, False),
        ('"a.b c[0]".d', ("a.b c[0]", "d"), False, False),
    ],
)
def test_a_path_says_where_something_is(text, steps, in_envelope, may_be_missing):
    path = FieldPath.parse(text)
    assert (path.steps, path.in_envelope, path.may_be_missing) == (steps, in_envelope, may_be_missing)
    assert (*path.keys, *path.within) == steps
    assert str(path) == text.removesuffix("?")


@pytest.mark.parametrize(
    "text",
    ["", "?", "^", "[0]", "a..b", ".a", "a.", "a b", " a", "a[x]", "a[-1]", "a[1000]", "a[0]b", 'a"b"', "a?b", "a\\b"],
)
def test_what_is_no_path_is_refused(text):
    with pytest.raises(ValueError, match="is no path as payload"):
        FieldPath.parse(text)


TWICE = '[platform.things.units]\nmm = [{ unit = "cm" }, { unit = "cm", factor = 0.1 }]\n[platform.eyes.x]'
ROWS = [
    ('source = "iot"', 'source = "drone"', 0, "source = 'drone' must be one of iot, video, hotline"),
    ('source = "iot"\n', "", -1, "source is missing"),
    ('"gcj02"', '"gcj2"', 0, "crs = 'gcj2' must be one of wgs84"),
    ("%Y-%m-%d %H", "%Y-%m-%d %I", 0, "must be one of rfc3339, unix_s, unix_ms, or a strptime format"),
    ('"UTC"', '"Mars"', 0, "time_zone = 'Mars' is not in the IANA time zone database"),
    ('"body.list"', '"body.list[0]"', 0, "must be plain keys, as data.list"),
    ('"body.list"', '"body..list"', 0, "elements = 'body..list' must be a path as payload.gps[0]"),
    ('"msg"', '"^msg"', 0, "id = '^msg': there is no envelope without elements"),
    ('"msg"', '"m g"', 0, "id = 'm g' must be a path as payload.gps[0]"),
    ('"msg"', "7", 0, "id = 7 must be a path"),
    ('"msg"', "[]", 0, "id = [] must be a path"),
    ('"ts"', '["ts"]', 0, "time = ['ts'] must be a path"),
    ('"msg"', '"msg?"', 0, "id = 'msg?' must not end in ?: a message of iot needs it"),
    ('["no", "^batch"]', '"^batch"', 0, "all messages of an envelope would have one id"),
    ('id = "msg"', 'ident = "msg"', 0, "ident is no field of a message of iot; it has id, time, platform"),
    ('id = "msg"\n', "", -1, "id is neither in fields nor in constants: a message of iot needs it"),
    ('confidence = "sure"\n', "", -5, "confidence is neither in fields nor in constants"),
    ('metric = "data.item?"', 'text = "t"', 0, "text is no field of a message of iot"),
    ('value = "data.val?"\n', "", -1, "metric without value, which is neither in fields nor in constants"),
    ('lat = "gps[1]?"\n', "", -1, "lon without lat, which"),
    ('"gps[1]?"', '"gps[0]?"', 0, "lon and lat are both read from gps[0]"),
    ('"ts"', '"msg"', 0, "id and time are both read from msg"),
    ('"msg"', '"dev"', 2, "device_id and id contradict: dev.code and dev cannot both have something"),
    ('"^head.camera"', '"^body"', 0, "camera_id and elements contradict: ^body and body.list"),
    ('"^head.camera"', '"^body.list[0].c"', 0, "camera_id and elements contradict"),
    ('unit = "mm"', 'unti = "mm"', 0, "unti is no field of a message of iot"),
    ('unit = "mm"', "unit = true", 0, "unit = True must be a text or a number"),
    ('unit = "mm"', 'unit = "mm"\nid = "x"', 1, "id cannot be a constant: every message would be"),
    ('unit = "mm"', 'unit = "mm"\nlon = 7', 1, "lon is both a constant and read from a path"),
    ('unit = "mm"', 'unit = "mm"\nstate = "on"', 1, "state = 'on' must be one of raised, cleared"),
    ('unit = "mm"', f'unit = "mm"\nasset_id = "{"x" * 65}"', 1, "Expected `str` of length <= 64"),
    ('unit = "mm"', f'unit = "mm"\nlat_ = "{"x" * 65}"', 1, "lat_ is no field of a message of iot"),
    ("accuracy_m = 0.01", "accuracy_m = 0", 0, "accuracy_m = 0 must be a number other than 0"),
    ("accuracy_m = 0.01", "accuracy_m = nan", 0, "accuracy_m = nan must be a number, finite"),
    ("accuracy_m = 0.01", "alarm = 2", 0, "alarm is no number; those of a message of iot are"),
    ("accuracy_m = 0.01", "value = 2", 0, "value is converted by its unit"),
    ('accuracy_m = "err?"\n', "", 6, "accuracy_m is scaled and not read from anywhere"),
    ('unit = "cm"\n', "", -1, "unit is missing"),
    ("factor = 0.1", "factor = 0", 0, "factor = 0 must be a number other than 0"),
    ("factor = 0.1", "factor = nan", 0, "factor = nan must be a number, finite"),
    ("offset = 1", "offset = inf", 0, "offset = inf must be a number, finite"),
    ("[platform.things.units.mm]", "[platform.things.units]\nmm = []\n[platform.eyes.x]", 1, "mm = [] says nothing"),
    ("[platform.things.units.mm]", TWICE, 1, "mm is one of our units in two ways"),
    ('unit = "mm"\n', "", 2, "units, and unit is neither in fields nor in constants"),
    ('alarm = "alarm?"\n', "", 8, "codes of alarm, which is neither in fields nor in constants"),
    ("codes.metric]", "codes.value]", 0, "value has no codes: it is a number"),
    ("codes.metric]", "codes.unit]", 0, "unit has no codes: [units] says"),
    ("codes.metric]", "codes.colour]", 0, "colour is no field of a message of iot"),
    ('17 = "cover_open"', "17 = 5", 0, "17 = 5 must be our word for it, a text"),
    ('17 = "cover_open"', '17 = "cover"', 0, "17 = 'cover' is no label of iot in the catalogue and no category"),
    ('17 = "cover_open"', f'17 = "{"x" * 129}"', 0, "is no alarm: Expected `str` of length <= 128"),
]


@pytest.mark.parametrize(("old", "new", "lines_below", "words"), ROWS, ids=[row[-1] for row in ROWS])
def test_a_fault_has_its_line_and_is_the_only_one(old, new, lines_below, words):
    line = FIRST + TWO[: TWO.index(old)].count("\n") + lines_below
    faults = [fault for fault in faults_of(TWO.replace(old, new, 1)) if fault.severity == "fault"]
    assert [(fault.file, fault.line) for fault in faults] == [("city.toml", line)], faults
    assert words in faults[0].message


@pytest.mark.parametrize("name", ["的 things", "a.b", "", "-a", "e" * 65])
def test_a_name_that_cannot_end_a_topics_name_is_a_fault(name):
    (fault,) = faults_of(TWO.replace("platform.things", f'platform."{name}"'))
    assert fault.line == FIRST
    assert fault.message.startswith(f"platform name {name!r} must match [A-Za-z0-9]"[:60])


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"alarm?"', '"alarm"\ncrs = "datum?"', None),
        ('0 = ""\n', "", None),
        ('"alarm?"\n', '"alarm"\nplatform = "vendor"\n', None),
        ('0 = ""\n', '0 = ""\n[platform.things.codes.crs]\n1 = "wgs84"\n', "codes of crs"),
    ],
)
def test_an_alarm_that_is_always_there_needs_a_code_of_none(old, new, words):
    messages = [fault.message for fault in faults_of(TWO.replace(old, new, 1))]
    assert [words in message for message in messages] == ([True] if words else []), messages


def test_an_alarm_that_every_reading_has_contradicts_it():
    (fault,) = faults_of(TWO.replace('"alarm?"', '"alarm"').replace('0 = ""\n', ""))
    assert fault.message.startswith("alarm and metric contradict")


def test_neither_reading_nor_alarm_can_be_said():
    without = [line for line in TWO.split("\n") if line.split(" = ")[0] not in ("metric", "value", "alarm", "unit")]
    text = "\n".join(without[: without.index("[platform.things.constants]")])
    (fault,) = faults_of(text)
    assert "neither alarm nor metric and value are in fields or in constants" in fault.message


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ('time_zone = "UTC"', 'time_zone = "UTC"\nspeed = 5', 6, "speed is not a key that is known here"),
        ("factor = 0.1", "faktor = 0.1", 22, "faktor is not a key that is known here"),
        ("%Y-%m-%d %H:%M:%S", "unix_s", 5, "time_zone has no effect: times in unix_s need none"),
        ('unit = "cm"', 'unit = "m"', 21, "unit = 'm': no rule is in it"),
        ('WL = "depth"', 'WL = "level"', 25, "WL = 'level': no rule judges it"),
    ],
)
def test_what_may_be_meant_is_a_warning(old, new, line, words):
    (fault,) = faults_of(TWO.replace(old, new, 1))
    assert (fault.severity, fault.line) == ("warning", FIRST + line - 1)
    assert words in fault.message


def test_an_unknown_label_is_a_warning_where_the_source_takes_any():
    city = HEAD + '[source.iot]\nfallback_category = "other"\n'
    (fault,) = faults_of(TWO.replace('"cover_open"', '"cover"', 1), city=city)
    assert fault.severity == "warning"


def test_a_broken_catalogue_is_not_blamed_on_the_platforms():
    broken = {"catalogue.toml": CATALOGUE_TOML.replace("radius_m = 40\n", "").encode()}
    faults = check_pack({**files_of(TWO), **broken})
    assert [fault.file for fault in faults] == ["catalogue.toml"]


@pytest.mark.parametrize(
    "platform", ["platform = 5", "[platform]\nx = 5", "[platform.x]\nsource = 5", "[[platform]]\n"]
)
def test_what_is_no_table_is_one_fault(platform):
    assert len(faults_of(platform + "\n")) == 1
    with pytest.raises(PackError):
        parse_pack(files_of(platform + "\n"))


ODD_VALUES = (
    '5', '0', "nan", "true", '""', '"x"', '"a[0].b?"', '"^a"', '"unix_s"', "[]", "[1]", '["a"]', "{}", "[{}]",
    "{ unit = 5 }", '[{ unit = "cm" }]', "1979-05-27", "unquoted",
)  # fmt: skip


@settings(max_examples=300)
@given(st.data())
def test_no_lines_whatever_break_the_check(data):
    """Lines taken out, doubled, moved or with another value: the answer is a list of faults, or a pack that reads."""
    lines = TWO.split("\n")
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(lines) - 1))
        change = data.draw(st.sampled_from(["value", "value", "value", "out", "in"]))
        if change == "value":
            lines[at] = f"{lines[at].split(' = ')[0]} = {data.draw(st.sampled_from(ODD_VALUES))}"
        elif change == "out" and len(lines) > 1:
            del lines[at]
        else:
            lines.insert(at, data.draw(st.sampled_from(lines)))
    faults = faults_of("\n".join(lines))
    assert all(fault.file == "city.toml" and fault.line for fault in faults)
    if not any(fault.severity == "fault" for fault in faults):
        pack = parse_pack(files_of("\n".join(lines)))
        Intake(pack, b"key").take([SourceRecord(topic, 0, 0, 0, None, b"{}") for topic in pack.platform_topics])
