"""The simulated day: reproducible, true to its truth, and wrong in every way that its error model declares."""

from __future__ import annotations

import csv
import functools
import gzip
import itertools
import re
from collections import Counter, defaultdict
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import orjson
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.commands.simulate import simulate as simulate_command
from geo.plane import distance_m
from packs import make_sample
from streams.error_model import BREAKABLE, SCENARIOS, ErrorModelError, read_error_model
from streams.evaluation import read_answers, read_truth, score
from streams.messages import SOURCE_OF_TOPIC, SOURCES
from streams.pack import Places, load_pack
from streams.recording import BadLine, encode_line, read_recording
from streams.replay import Replay
from streams.simulation import TRUTH_COLUMNS, simulate, truth_csv

SAMPLE = Path(make_sample.__file__).parent / "sample"
START = datetime.fromisoformat("2026-06-01T00:00:00+08:00")
START_MS = round(START.timestamp() * 1000)
MODEL = read_error_model()


@pytest.fixture(scope="module")
def pack():
    return load_pack(SAMPLE)


@pytest.fixture(scope="module")
def day(pack):
    return simulate(pack, MODEL, seed=1, start=START, hours=24)


@functools.cache
def two_days(pack):
    return simulate(pack, MODEL, seed=2, start=START, hours=48, rate=0.5)


@pytest.fixture(scope="module")
def replayed(pack, day):
    run = Replay(pack, b"a key")
    assignments, _ = run.take(day.messages)
    return run, assignments


def elements(messages):
    """(source, decoded element) of all that is JSON and says things by our names."""
    for message in messages:
        if (b"tingwu" in dict(message.headers).values()) or (b"tingshi" in dict(message.headers).values()):
            continue
        try:
            value = orjson.loads(message.value)
        except orjson.JSONDecodeError:
            continue
        for element in value if isinstance(value, list) else [value]:
            yield SOURCE_OF_TOPIC[message.topic], element


def ids_in(messages):
    """(source, id) of all that is said, whatever the platform calls it."""
    return {(SOURCE_OF_TOPIC[message.topic], id_.decode()) for message in messages
            for id_ in re.findall(rb'"([SVHP][0-9]{7})"', message.value)}  # fmt: skip


def agrees_with_a_replay(pack, got):
    """The service finds as many reports, repeats, quiet readings and dead letters as the simulation says there are."""
    run = Replay(pack, b"a key")
    assignments, _ = run.take(got.messages)
    assert {(a.source, a.report_id) for a in assignments} == {(row.source, row.report_id) for row in got.truth}
    assert run.counts.dead_letters == got.sent.broken
    assert run.counts.quiet_readings == got.sent.quiet
    assert run.counts.outcomes["repeat"] == got.sent.repeats
    assert run.counts.outcomes["amended"] == got.sent.amended
    assert run.counts.elements == sum(got.elements.values())
    return assignments


def recorded(simulation):
    return b"".join(map(encode_line, simulation.messages)), truth_csv(simulation.truth)


# --------------------------------------------------------------------------------------------- reproducible


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(pack):
    one, same, other = (recorded(simulate(pack, MODEL, seed=s, start=START, hours=2)) for s in (5, 5, 6))
    assert one == same
    assert one[0] != other[0]


@settings(max_examples=8)
@given(
    seed=st.integers(0, 2**64),
    hours=st.sampled_from([0.3, 1.0, 2.5]),
    hour=st.integers(0, 23),
    rate=st.sampled_from([0.2, 1.0, 3.0]),
)
def test_whatever_the_seed_the_recording_and_its_truth_agree(pack, seed, hours, hour, rate):
    start = START + timedelta(hours=hour)
    got = simulate(pack, MODEL, seed=seed, start=start, hours=hours, rate=rate)
    begin_ms = round(start.timestamp() * 1000)
    timestamps = [message.timestamp_ms for message in got.messages]
    assert timestamps == sorted(timestamps)
    assert all(begin_ms <= t < begin_ms + hours * 3_600_000 for t in timestamps)
    for topic in SOURCE_OF_TOPIC:
        offsets = [message.offset for message in got.messages if message.topic == topic]
        assert offsets == list(range(len(offsets)))

    ids = [(row.source, row.report_id) for row in got.truth]
    assert len(ids) == len(set(ids))
    assert {source: n for source, n in got.reports.items() if n} == Counter(source for source, _ in ids)
    assert set(ids) <= ids_in(got.messages)

    seen = {}
    for row in got.truth:
        first = seen.setdefault(row.cluster_id, row.report_id) if row.cluster_id else row.report_id
        assert (row.is_duplicate, row.parent_id) == ((0, "") if first == row.report_id else (1, first))
        assert (row.lon is None) == (not row.cluster_id.startswith("e"))
        if row.lon is not None:
            assert pack.grid.locate([row.lon], [row.lat])[0] >= 0

    agrees_with_a_replay(pack, got)


# ------------------------------------------------------------------------------------ wrong in every declared way


@pytest.mark.parametrize(
    "error",
    ["late", "mislabelled", "mislabelled_far", "label_unknown", "address_only", "nowhere", "datum_undeclared",
     "false_alarm", "same_again", "another_thing", "no_event", "flapping", "trembling", "wrong_unit",
     "road_only", "misheard", "unknown_place"],
)  # fmt: skip
def test_each_kind_of_error_happens_in_two_days(pack, error):
    assert two_days(pack).sent.errors[error] > 0


def test_every_reason_for_a_dead_letter_happens_and_is_found_out(day, replayed):
    run, _ = replayed
    assert set(day.sent.broken) == {reason.value for reason in BREAKABLE}
    assert run.counts.dead_letters == day.sent.broken


def test_a_day_of_the_sample_city_is_a_demo_of_two_minutes(day):
    assert 10_000 <= len(day.messages) <= 20_000
    assert set(day.reports) == set(SOURCES)
    assert min(day.reports.values()) > 500
    assert len(day.storms) == 1


def test_gateways_batch_datums_are_declared_and_platforms_send_again(day):
    assert sum(message.value.startswith(b"[") for message in day.messages) > 100
    declared = Counter((source, e.get("crs")) for source, e in elements(day.messages) if isinstance(e, dict))
    assert declared["hotline", "bd09"] > 50
    assert declared["patrol", "gcj02"] > 50
    assert declared["video", "wgs84"] > 20
    assert day.sent.repeats > 20
    assert day.sent.amended > 5
    assert day.sent.quiet > 5_000


def test_every_source_raises_false_alarms_and_none_is_an_event(day):
    false = [row for row in day.truth if row.cluster_id.startswith("f")]
    assert {row.source for row in false} == set(SOURCES)
    assert all(row.event_category == "" for row in false)
    people = [row.cluster_id for row in false if row.source in ("hotline", "patrol")]
    assert len(set(people)) == len(people), "people's are alone; a camera and a sensor at fault say theirs again"
    said_again = {row.cluster_id for row in false if row.is_duplicate}
    assert {row.source for row in false if row.cluster_id in said_again} == {"video", "iot"}


def test_questions_and_praise_are_in_the_truth_without_an_event(pack, day, replayed):
    _, assignments = replayed
    asked = {row.report_id for row in day.truth if not row.cluster_id}
    assert asked == {a.report_id for a in assignments if a.outcome == "not_an_event"}
    assert len(asked) == day.sent.errors["no_event"]


def test_about_as_many_citizens_repeat_one_another_as_in_other_cities(day):
    """15 to 30 %, counted among the tickets about something."""
    tickets = [row.cluster_id for row in day.truth if row.source == "hotline" and row.cluster_id]
    assert 0.15 <= 1 - len(set(tickets)) / len(tickets) <= 0.32


def test_one_video_message_in_five_is_wrong(pack, day):
    label_of = {e["id"]: e["event_type"] for s, e in elements(day.messages) if s == "video" and isinstance(e, dict)
                and "id" in e and "event_type" in e}  # fmt: skip
    video = [row for row in day.truth if row.report_id in label_of]
    assert len(video) > 800
    right = sum(
        row.event_category != "" and pack.categories[pack.category_of("video", label_of[row.report_id])].code
        == row.event_category for row in video
    )  # fmt: skip
    assert 0.75 <= right / len(video) <= 0.87


def test_late_messages_come_ten_minutes_after_their_time_and_more(day):
    late = 0
    for message in day.messages:
        if message.topic == "patrol.reports" and message.value.startswith(b"{") and message.value.endswith(b"}"):
            time = orjson.loads(message.value).get("time")
            if isinstance(time, str) and time.startswith("2026-06-01"):
                late += message.timestamp_ms - datetime.fromisoformat(time).timestamp() * 1000 > 600_000
    assert late > 20


def test_devices_and_cameras_report_only_what_is_within_their_reach(pack, day):
    truth = {(row.source, row.report_id): row for row in day.truth}
    checked = Counter()
    for source, element in elements(day.messages):
        if not isinstance(element, dict) or (source, element.get("id")) not in truth:
            continue
        row = truth[source, element["id"]]
        name = element.get("device_id") or element.get("camera_id")
        if name is None or row.lon is None:
            continue
        device = pack.devices[name]
        reach_m = MODEL.iot.reach_m if source == "iot" else MODEL.video.reach_m
        assert distance_m(device.lon, device.lat, row.lon, row.lat) <= reach_m + MODEL.storm.extent_m[1]
        checked[source] += 1
    assert set(checked) == {"iot", "video"}


def test_events_of_one_group_keep_apart_as_long_as_nobody_could_tell_them_apart(pack, day):
    """Whatever two events of a group are seen in one hour, they lie a radius apart, but for what a storm brings."""
    category = {c.code: c for c in pack.categories}
    by_group = defaultdict(dict)
    for row in day.truth:
        if row.lon is not None and row.event_category not in MODEL.storm.categories:
            by_group[category[row.event_category].group].setdefault(row.cluster_id, row)
    time_of = {}
    for source, e in elements(day.messages):
        if source == "hotline" and isinstance(e, dict) and isinstance(e.get("time"), str) and "id" in e:
            time_of[e["id"]] = e["time"]
    pairs = 0
    for events in by_group.values():
        called = [row for row in events.values() if row.report_id in time_of]
        for a, b in itertools.combinations(called, 2):
            gap = datetime.fromisoformat(time_of[a.report_id]) - datetime.fromisoformat(time_of[b.report_id])
            if abs(gap) < timedelta(hours=1):
                radius_m = max(category[a.event_category].radius_m, category[b.event_category].radius_m)
                assert distance_m(a.lon, a.lat, b.lon, b.lat) > radius_m
                pairs += 1
    assert pairs > 10


def test_the_truth_scores_a_perfect_answer_as_perfect_and_a_replay_in_between(day, replayed):
    run, assignments = replayed
    truth = read_truth(truth_csv(day.truth).splitlines())
    perfect = [
        orjson.dumps({"origin": str(i), "source": row.source, "report_id": row.report_id, "outcome": "joined",
                      "incident_id": row.cluster_id or None, "category": row.event_category})
        for i, row in enumerate(day.truth)
    ]  # fmt: skip
    best = score(read_answers(perfect), truth)
    assert (best.pair_f1, best.b_cubed_f1, best.link_recall) == (1.0, 1.0, 1.0)
    assert (best.join_unflagged, best.wrongly_merged) == (0.0, 0.0)
    real = score(read_answers(map(msgspec.json.encode, assignments)), truth)
    assert real.absent == 0
    assert 0.6 < real.pair_f1 < 1.0
    assert real.collapsed == pytest.approx(run.counts.summary(len(run.incidents()), 1.0)["collapsed"], abs=1e-6)


# ------------------------------------------------------------------------------------------------ other cities


def test_a_city_without_devices_and_places_has_people_only(pack):
    bare = replace(pack, devices={}, places=Places())
    got = simulate(bare, MODEL, seed=1, start=START + timedelta(hours=9), hours=2)
    assert set(got.reports) == {"hotline", "patrol"}


def test_a_model_without_errors_gives_messages_without_errors(pack):
    quiet_model = read_error_model(
        "[storm]\nper_day=0\n[broken]\nshare=0\n"
        "[hotline]\nlate=0\nmislabelled=0\nmislabelled_far=0\nlabel_unknown=0\naddress_only=0\nnowhere=0\n"
        "false_alarms=0\nno_event=0\nsent_again=0\namended=0\ndatum_undeclared=0\nsame_again=0\nanother_thing=0\n"
        "[patrol]\nlate=0\nmislabelled=0\nmislabelled_far=0\nfalse_alarms=0\nsent_again=0\nsame_again=0\n"
        "[video]\nlate=0\nmislabelled=0\nmislabelled_far=0\nfalse_alarms=0\nsent_again=0\nagain_most=0\ntwo_platforms=0\n"
        "[iot]\nlate=0\nfalse_alarms=0\nsent_again=0\nagain_most=0\nflaps=0\ntwo_platforms=0\n"
        "[iot.faults]\nshare=0\n"
        "[hotline.texts]\nmisread=0\n[patrol.texts]\nneighbour=0\n"
    )
    got = simulate(pack, quiet_model, seed=1, start=START + timedelta(hours=9), hours=2)
    assert (+got.sent.errors, +got.sent.broken, got.storms) == (Counter(), Counter(), [])
    assert (got.sent.repeats, got.sent.amended) == (0, 0)
    assert sum(got.reports.values()) > 100


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("x =", "e.toml: not TOML"),
        ("[hotline]\nlate = 2", r"e.toml: Expected `float` <= 1.0 - at `hotline.late`"),
        ("[hotline]\nlat = 0.2", "unknown field `lat` - at `hotline`"),
        ("[events]\nper_day = nan", "events.per_day"),
        ("[events]\nlasting_max_s = inf", "events.lasting_max_s"),
        ("[video]\nconfidence = [0.9, 0.1]", "video.confidence = .* small to large"),
        ("[hotline.datums]\nutm = 1", "hotline.datums.utm must be"),
        ("[iot.datums]\ndefault = 0", "iot.datums must not all be 0"),
        ("[broken.reasons]\nunknown_incident = 1", "broken.reasons.unknown_incident must be one of"),
        ("[events]\nhours = [1]", "events.hours"),
        ("[events.curve_of]\n'06028' = 'lunch'", "events.curve_of.06028 = 'lunch' must be one of night, trade"),
        ("[events.curves]\nnever = [0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]", "events.curves.never must not"),
        ("[storm]\napart_m = [90, 60]", r"storm.apart_m = \[90, 60\] must go from small to large"),
        ("[storm]\nradius = 1", "unknown field `radius` - at `storm`"),
        ("[iot.readings.gas]\nlow = nan", "iot.readings"),
        ("[iot.readings.gas.during]\n'90004' = [9, 3]", r"iot.readings.gas.during.90004 = \[9, 3\] must go"),
        ("[iot.faults.kinds]\nrust = 1", "iot.faults.kinds.rust must be one of stuck"),
        ("[iot.platforms.x]\nshare = 0.1\ncrs = 'utm'", "iot.platforms.x.crs = 'utm' must be one of wgs84"),
        ("[iot.platforms.x]\nshare = 0.9", "iot.platforms: the shares must not add up"),
        ("[dispatch.limit_s]\nfortnight = 1", "dispatch.limit_s.fortnight must be one of urgent_hour"),
        ("[dispatch]\nfirst_look_s = 1", "dispatch.first_look_s"),
    ],
)
def test_a_wrong_error_model_is_named_with_its_key(text, complaint):
    with pytest.raises(ErrorModelError, match=complaint):
        read_error_model(text, name="e.toml")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"start": datetime(2026, 6, 1)}, "offset"),
        ({"hours": 0.0}, "greater than 0"),
        ({"rate": float("inf")}, "greater than 0"),
        ({"rate": 1e6}, "fewer hours"),
    ],
)
def test_what_cannot_be_simulated_is_refused_at_once(pack, changes, complaint):
    wanted = {"seed": 1, "start": START, "hours": 1.0, "rate": 1.0, **changes}
    with pytest.raises(ValueError, match=complaint):
        simulate(pack, MODEL, **wanted)


# -------------------------------------------------------------------------------------------------- the command


def invoke(*arguments):
    return CliRunner().invoke(simulate_command, ["--city", str(SAMPLE), "--hours", "0.5", *map(str, arguments)])


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_the_command_writes_a_recording_and_its_truth_the_same_twice(tmp_path, suffix):
    for name in "ab":
        result = invoke("--out", tmp_path / f"{name}.jsonl{suffix}", "--truth", tmp_path / f"{name}.csv.gz", "--json")
        assert result.exit_code == 0, result.output
    figures = orjson.loads(result.stdout)
    assert (tmp_path / f"a.jsonl{suffix}").read_bytes() == (tmp_path / f"b.jsonl{suffix}").read_bytes()
    assert (tmp_path / "a.csv.gz").read_bytes() == (tmp_path / "b.csv.gz").read_bytes()
    read = list(read_recording(tmp_path / f"a.jsonl{suffix}"))
    assert len(read) == figures["messages"]
    assert not any(isinstance(message, BadLine) for message in read)
    with gzip.open(tmp_path / "a.csv.gz", "rt", encoding="utf-8", newline="") as text:
        rows = list(csv.DictReader(text))
    assert tuple(rows[0]) == TRUTH_COLUMNS
    assert len(rows) == sum(figures["reports"].values())


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_scenarios_that_are_shipped_are_known_by_name(tmp_path, name):
    result = invoke("--out", tmp_path / "o.jsonl", "--truth", tmp_path / "t.csv", "--errors", name)
    assert result.exit_code == 0, result.output


def test_the_command_takes_ones_own_errors_and_start(tmp_path):
    errors = tmp_path / "errors.toml"
    errors.write_text("[broken]\nshare = 0\n", encoding="utf-8")
    out, truth = tmp_path / "o.jsonl", tmp_path / "t.csv"
    result = invoke("--out", out, "--truth", truth, "--errors", errors, "--start", "2026-07-01T08:00:00+08:00")
    assert result.exit_code == 0, result.output
    assert " 0 broken" in result.stdout
    first = next(message for message in read_recording(out))
    assert first.timestamp_ms >= START_MS + (30 * 24 + 8) * 3_600_000


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["--errors", "{dir}/bad.toml"], 1, "hotline.late"),
        (["--start", "yesterday"], 2, "2026-06-01T00:00:00+08:00"),
        (["--start", "2026-06-01T00:00:00"], 2, "no offset"),
        (["--out", "{dir}/missing/o.jsonl"], 1, "cannot be written"),
        (["--truth", "{dir}/missing/t.csv"], 1, "cannot be written"),
        (["--city", "{dir}"], 1, "city.toml"),
        (["--rate", "0"], 2, "rate"),
    ],
)
def test_the_command_says_what_is_wrong(tmp_path, arguments, code, complaint):
    (tmp_path / "bad.toml").write_text("[hotline]\nlate = 7\n", encoding="utf-8")
    given_last = [argument.format(dir=tmp_path) for argument in arguments]
    result = invoke("--out", tmp_path / "o.jsonl", "--truth", tmp_path / "t.csv", *given_last)
    assert result.exit_code == code
    assert complaint in result.stderr
