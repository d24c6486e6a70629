"""`citybrain replay`: the accounting holds, nothing but the recording matters, and what cannot be read is told."""

from __future__ import annotations

import gzip
import io
import json
import shutil
from collections import Counter, defaultdict
from datetime import datetime
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from agents.commands.build_pack import build_pack_command
from agents.commands.replay import replay
from packs import make_sample
from sinks.files import ASSIGNMENTS_FILE, DEAD_LETTERS_FILE, INCIDENTS_FILE, SUMMARY_FILE
from streams.blocks import decode_block, encode_blocks
from streams.error_model import read_error_model
from streams.evaluation import read_answers, read_truth, score
from streams.intake import Intake, SourceRecord
from streams.pack import CityPack, load_pack
from streams.recording import RecordedMessage, read_recording, write_recording
from streams.routing import Router
from streams.shard import Shard
from streams.simulation import Simulation, simulate

PACKS = Path(make_sample.__file__).parent
SAMPLE = PACKS / "sample"
RESULTS = (ASSIGNMENTS_FILE, INCIDENTS_FILE, DEAD_LETTERS_FILE)
START = datetime.fromisoformat("2026-06-01T06:00:00+08:00")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(replay, [str(argument) for argument in arguments])


def replayed(recording: Path, pack: Path, out: Path, *options: object) -> dict[str, bytes]:
    result = run(recording, "--city", pack, "--out", out, *options)
    assert result.exit_code == 0, result.output
    return {name: (out / name).read_bytes() for name in RESULTS}


@pytest.fixture(scope="module")
def pack() -> CityPack:
    return load_pack(SAMPLE)


@pytest.fixture(scope="module")
def hours(pack) -> Simulation:
    """A few hours of the sample city, broken messages and arrays of gateways among them."""
    return simulate(pack, read_error_model(), seed=7, start=START, hours=4)


@pytest.fixture(scope="module")
def recording(hours, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("recorded") / "hours.jsonl.gz"
    write_recording(path, hours.messages)
    return path


@pytest.fixture(scope="module")
def results(recording, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("replayed")
    replayed(recording, SAMPLE, out)
    return out


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


# ---------------------------------------------------------------------------------------------------------- accounting


def test_every_element_comes_out_exactly_once(hours, results):
    """By origin: an assignment, a dead letter, or a reading that raised nothing; counted here by hand."""
    elements = {}
    for message in hours.messages:
        value = message.value.strip()
        try:
            decoded = json.loads(value)
        except ValueError:  # undecodable bytes too
            decoded = None
        parts = decoded if isinstance(decoded, list) else [decoded]
        for index, part in enumerate(parts):
            elements[f"{message.topic}:{message.partition or 0}:{message.offset}:{index}"] = part
    assigned = [one["origin"] for one in lines(results / ASSIGNMENTS_FILE) if one["revision"] == 0]
    dead = [one["origin"] for one in lines(results / DEAD_LETTERS_FILE)]
    came_out = Counter(assigned + dead)
    assert max(came_out.values()) == 1
    assert came_out.keys() <= elements.keys()
    quiet = [elements[origin] for origin in elements.keys() - came_out.keys()]
    assert all("alarm" not in one or one.get("state") == "cleared" for one in quiet)

    summary = json.loads((results / SUMMARY_FILE).read_bytes())
    assert summary["records"] == len(hours.messages) > 1000
    assert summary["elements"] == len(elements) == sum(summary["elements_by_source"].values())
    assert summary["reports"] == len(assigned) == sum(summary["outcomes"].values())
    assert sum(summary["dead_letters"].values()) == len(dead)
    assert summary["quiet_readings"] == len(quiet) > 0
    assert summary["elements"] == summary["reports"] + len(dead) + summary["quiet_readings"]
    assert summary["repeats"] == hours.sent.repeats > 0
    assert summary["outcomes"]["amended"] == hours.sent.amended > 0
    assert summary["incidents"] == len(lines(results / INCIDENTS_FILE))


def test_dead_letters_are_those_that_were_broken_each_with_its_reason(hours, results):
    assert Counter(one["reason"] for one in lines(results / DEAD_LETTERS_FILE)) == hours.sent.broken
    assert hours.sent.broken.total() > 0


def test_incidents_are_sorted_and_their_counts_are_those_of_the_assignments(results):
    incidents = lines(results / INCIDENTS_FILE)
    ids = [one["incident_id"] for one in incidents]
    assert ids == sorted(set(ids))
    of_incident: defaultdict[str, Counter] = defaultdict(Counter)
    first: dict[str, dict] = {}
    came, left = Counter(), Counter()
    for one in lines(results / ASSIGNMENTS_FILE):
        if one["revision"]:
            came[one["incident_id"]] += 1
            left[first[one["origin"]]["incident_id"]] += 1
        else:
            first[one["origin"]] = one
            if one["incident_id"] is not None:
                of_incident[one["incident_id"]][one["outcome"]] += 1
    assert of_incident.keys() == set(ids)
    for incident in incidents:
        outcomes = of_incident[incident["incident_id"]]
        comings, leavings = came[incident["incident_id"]], left[incident["incident_id"]]
        # A repeat or an amendment after a second thought goes after its report.
        if comings == leavings == 0:
            assert incident["repeat_count"] == outcomes.pop("repeat", 0)
            assert incident["version"] == outcomes.total()
            outcomes.pop("amended", 0)
        else:
            outcomes -= Counter({key: outcomes[key] for key in ("repeat", "amended")})
        assert incident["report_count"] == outcomes.total() + comings - leavings == sum(incident["sources"].values())
        assert 1 <= incident["witness_count"] <= incident["report_count"]


@pytest.mark.parametrize(("batch", "shards"), [(1, 1), (7, 3), (1000, 8), (10_000, 1), (10_000, 3)])
def test_neither_batches_nor_shards_change_a_byte(recording, results, tmp_path, batch, shards):
    again = replayed(recording, SAMPLE, tmp_path, "--batch", batch, "--shards", shards)
    for name in RESULTS:
        assert again[name] == (results / name).read_bytes(), name


def test_a_source_whose_datum_the_pack_has_wrong_is_told_whatever_the_batches(recording, pack, tmp_path):
    """The hotline's tickets are in GCJ-02; a pack that says WGS-84 puts them half a kilometre off."""
    wrong = tmp_path / "wrong"
    shutil.copytree(SAMPLE, wrong)
    text = (wrong / "city.toml").read_text(encoding="utf-8")
    before, section, after = text.partition("[source.hotline]")
    assert 'crs = "gcj02"' in after.split("[source.patrol]")[0]
    (wrong / "city.toml").write_text(
        before + section + after.replace('crs = "gcj02"', 'crs = "wgs84"', 1), encoding="utf-8"
    )
    day = tmp_path / "day.jsonl.gz"
    write_recording(day, simulate(pack, read_error_model(), seed=7, start=START, hours=18).messages)
    told = []
    for number, batch in enumerate((10_000, 113)):
        out = tmp_path / f"out{number}"
        result = run(day, "--city", wrong, "--out", out, "--batch", batch)
        assert result.exit_code == 0, result.output
        told.append(json.loads((out / SUMMARY_FILE).read_bytes())["datums"])
        assert "datum: hotline declares wgs84 and sends gcj02 (" in result.output
    assert told[0] == told[1]
    named = {(one["source"], one["platform"], one["declared"], one["really"]) for one in told[0]}
    assert ("hotline", "", "wgs84", "gcj02") in named
    assert {source for source, _, _, _ in named} == {"hotline"}
    assert all(400 < one["offset_m"] < 700 for one in told[0])


def test_where_every_datum_is_as_declared_nothing_is_told(results):
    assert json.loads((results / SUMMARY_FILE).read_bytes())["datums"] == []


def test_a_recording_cut_in_two_files_is_one_stream(recording, results, tmp_path):
    messages = list(read_recording(recording))
    halves = [tmp_path / "one.jsonl", tmp_path / "two.jsonl.zst"]
    write_recording(halves[0], messages[:400])
    write_recording(halves[1], messages[400:])
    result = run(*halves, "--city", SAMPLE, "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["records"] == len(messages)
    for name in RESULTS:
        assert (tmp_path / "out" / name).read_bytes() == (results / name).read_bytes()


def test_a_recording_by_hand_needs_topic_and_value_alone(tmp_path):
    """Offsets count up for each topic, over files; time is the message's own."""
    message = '{"id": "%s", "time": "2026-03-01T00:00:0%d+08:00", "category": "90001"}'
    ticket = '{"topic": "hotline.tickets", "value": ' + message + "}\n"
    (tmp_path / "one.jsonl").write_text(ticket % ("a", 1) + "\n" + ticket % ("b", 2))
    (tmp_path / "two.jsonl").write_text(ticket % ("a", 3))
    result = run(tmp_path / "one.jsonl", tmp_path / "two.jsonl", "--city", SAMPLE, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    got = [(one["origin"], one["outcome"]) for one in lines(tmp_path / "out" / ASSIGNMENTS_FILE)]
    assert got == [
        ("hotline.tickets:0:0:0", "opened"),
        ("hotline.tickets:0:1:0", "opened"),
        ("hotline.tickets:0:2:0", "repeat"),
    ]


def test_a_recording_of_reports_replays_from_dedupe_on(hours, pack, tmp_path):
    """What the worker's shards would fold, block for block."""
    records = [
        SourceRecord(one.topic, one.partition or 0, one.offset, one.timestamp_ms, one.key, one.value)
        for one in hours.messages
    ]
    intake, shards = Intake(pack, b"key"), 3
    router = Router(intake.terms, shards)
    folds = [Shard(intake.terms) for _ in range(shards)]
    log, expected = [], []
    for start in range(0, len(records), 400):
        batch = intake.take(records[start : start + 400])
        for shard, (rows, _, feedback) in router.split(batch.reports, batch.feedback).items():
            for data in encode_blocks(intake.terms, batch.reports.take(rows), feedback, (shard, shards)):
                log.append(RecordedMessage("reports", data, partition=shard))
                expected += folds[shard].apply_block(decode_block(data, intake.terms)).assignments
    path = tmp_path / "reports.jsonl.zst"
    write_recording(path, log)
    got = replayed(path, SAMPLE, tmp_path / "out")
    assert got[ASSIGNMENTS_FILE].splitlines() == [msgspec.json.encode(one, order="deterministic") for one in expected]
    incidents = sorted((one for fold in folds for one in fold.incidents()), key=lambda one: one.incident_id)
    assert [one["incident_id"] for one in lines(tmp_path / "out" / INCIDENTS_FILE)] == [
        one.incident_id for one in incidents
    ]


# ----------------------------------------------------------------------------------------------------------- bad input


def test_a_cut_recording_is_replayed_up_to_the_cut_and_told(recording, tmp_path):
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(recording.read_bytes()[:-5000])
    result = run(cut, "--city", SAMPLE, "--out", tmp_path / "out")
    assert result.exit_code == 1
    summary = json.loads((tmp_path / "out" / SUMMARY_FILE).read_bytes())
    assert summary["bad_lines"] == 1
    assert summary["records"] > 500
    *_, place, last = result.stderr.splitlines()
    assert place.startswith(f"{cut}:")
    assert "cut" in place
    assert last == f"Error: 1 place could not be read; everything else was replayed into {tmp_path / 'out'}"


def test_broken_lines_are_told_by_number_and_the_others_replayed(recording, results, tmp_path):
    plain = gzip.decompress(recording.read_bytes()).splitlines(keepends=True)
    broken = tmp_path / "broken.jsonl"
    broken.write_bytes(
        b"".join([*plain[:3], b'{"topic": "hotl\n', *plain[3:9], b"\xff\xfe\n", *plain[9:], plain[9][:-9]])
    )
    result = run(broken, "--city", SAMPLE, "--out", tmp_path / "out")
    assert result.exit_code == 1
    told = [line for line in result.stderr.splitlines() if line.startswith(f"{broken}:")]
    assert [line.split(":")[1] for line in told] == ["4", "11", str(len(plain) + 3)]
    for name in RESULTS:
        assert (tmp_path / "out" / name).read_bytes() == (results / name).read_bytes(), name


def test_a_file_of_garbage_is_told_in_a_few_lines(tmp_path):
    path = tmp_path / "garbage.jsonl"
    path.write_bytes(b"x\n" * 10_000)
    result = run(path, "--city", SAMPLE, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) < 10
    assert "10,000 places could not be read" in result.stderr


def only_line(result: Result) -> str:
    assert result.exit_code == 1
    assert result.exception is None or isinstance(result.exception, SystemExit)
    (line,) = result.stderr.splitlines()
    return line


def test_a_recording_that_is_not_there_is_told_before_the_others_are_replayed(recording, tmp_path):
    line = only_line(run(recording, tmp_path / "no.jsonl", "--city", SAMPLE, "--out", tmp_path / "out"))
    assert line == f"Error: {tmp_path / 'no.jsonl'}: no such recording; check the path"
    assert not (tmp_path / "out").exists()


def test_sources_and_reports_in_one_recording_would_count_twice(recording, pack, tmp_path):
    path = tmp_path / "mixed.jsonl"
    (tick, *_) = [RecordedMessage("reports", b"", partition=0)]
    write_recording(path, [*list(read_recording(recording))[:5], tick])
    line = only_line(run(path, "--city", SAMPLE, "--out", tmp_path / "out", "--batch", 2))
    assert "would count every report twice" in line
    assert not (tmp_path / "out" / SUMMARY_FILE).exists()


def test_a_block_that_cannot_be_read_is_told_by_its_place(tmp_path):
    path = tmp_path / "reports.jsonl"
    write_recording(path, [RecordedMessage("reports", b"junk", partition=2, offset=17)])
    line = only_line(run(path, "--city", SAMPLE, "--out", tmp_path / "out"))
    assert line.startswith("Error: reports:2:17: not a block of reports")


def test_a_folder_that_cannot_be_written_is_told_with_a_remedy(recording, tmp_path):
    (tmp_path / "file").write_text("in the way")
    line = only_line(run(recording, "--city", SAMPLE, "--out", tmp_path / "file" / "out"))
    assert str(tmp_path / "file" / "out") in line
    assert "choose another folder" in line


def test_a_full_disk_is_told_and_leaves_no_summary(recording, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / (ASSIGNMENTS_FILE + ".part")).symlink_to("/dev/full")
    line = only_line(run(recording, "--city", SAMPLE, "--out", out))
    assert "the disk is full" in line
    assert not (out / SUMMARY_FILE).exists()


def test_a_pack_that_is_none_is_told_before_anything_is_written(recording, tmp_path):
    result = run(recording, "--city", tmp_path / "nowhere", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "no such folder" in result.stderr
    assert not (tmp_path / "out").exists()


def test_other_topics_are_ignored_and_told(recording, results, tmp_path):
    path = tmp_path / "more.jsonl"
    write_recording(path, [RecordedMessage("incidents", b"{}"), *read_recording(recording)])
    result = run(path, "--city", SAMPLE, "--out", tmp_path / "out")
    assert result.exit_code == 0
    assert result.stderr.splitlines() == ["ignored, not a source's topic: {'incidents': 1}"]
    assert (tmp_path / "out" / ASSIGNMENTS_FILE).read_bytes() == (results / ASSIGNMENTS_FILE).read_bytes()


# -------------------------------------------------------------------------------------------------------------- Boston


@pytest.fixture(scope="module")
def boston(city_data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("packs") / "boston"
    boundaries = city_data / "boston/neighborhoods.geojson.gz"
    options = ["--cell-m", "150", "--name", "Boston", "--code", "boston", "--timezone", "America/New_York"]
    built = CliRunner().invoke(build_pack_command, ["--boundaries", str(boundaries), *options, "--out", str(folder)])
    assert built.exit_code == 0, built.output
    for file in (PACKS / "boston").glob("*.toml"):
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_boston_s_summer_of_2011(city_data, boston, tmp_path):
    """Every one of 31,802 reports is accounted for, and duplicates are found without joining what is none."""
    recording = city_data / "boston/recording-2011q3.jsonl.gz"
    one = replayed(recording, boston, tmp_path / "one")
    other = replayed(recording, boston, tmp_path / "other", "--batch", 777, "--shards", 3)
    assert one == other

    summary = json.loads((tmp_path / "one" / SUMMARY_FILE).read_bytes())
    assert summary["records"] == summary["elements"] == 31_802
    assert summary["reports"] + sum(summary["dead_letters"].values()) == 31_802
    assert summary["datums"] == []

    with gzip.open(city_data / "boston/truth-2011q3.csv.gz") as truth:
        rows = read_truth(io.TextIOWrapper(truth, encoding="utf-8", newline=""))
    scores = score(read_answers(one[ASSIGNMENTS_FILE].splitlines()), rows)
    assert scores.pair_f1 >= 0.82
    assert scores.join_unflagged <= 0.12


def test_a_pack_that_reads_boston_s_callers_in_another_datum_is_told_of_with_its_alternative(
    city_data, boston, tmp_path
):
    """City workers report some of the same things within two hours.  Either the callers declare BD-09 and send WGS-84,
    or the workers declare WGS-84 and send BD-09: there are no devices and no places that could tell.
    """
    wrong = tmp_path / "wrong"
    shutil.copytree(boston, wrong)
    text = (wrong / "city.toml").read_text(encoding="utf-8")
    before, section, after = text.partition("[source.hotline]")
    assert 'crs = "wgs84"' in after.split("[source.patrol]")[0]
    (wrong / "city.toml").write_text(before + section + after.replace('"wgs84"', '"bd09"', 1), encoding="utf-8")
    replayed(city_data / "boston/recording-2011q3.jsonl.gz", wrong, tmp_path / "out")
    told = json.loads((tmp_path / "out" / SUMMARY_FILE).read_bytes())["datums"]
    assert [(one["source"], one["declared"], one["really"], one["or_else"]) for one in told] == [
        ("hotline", "bd09", "wgs84", "patrol"),
        ("patrol", "wgs84", "bd09", "hotline"),
    ]
