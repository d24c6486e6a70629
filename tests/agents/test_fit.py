"""`citybrain fit`: a recording and a truth in, a pack that a person can read out."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from planted_events import DAY_MS, pack_files, reported

from agents.commands import main
from packs import make_sample
from streams.pack import load_pack
from streams.recording import RecordedMessage, write_recording

SAMPLE = Path(make_sample.__file__).parent / "sample"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["fit", *(str(argument) for argument in arguments)])


@pytest.fixture
def city(tmp_path) -> Path:
    folder = tmp_path / "city"
    folder.mkdir()
    for name, content in pack_files().items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def recording(tmp_path) -> Path:
    path = tmp_path / "days.jsonl.gz"
    write_recording(path, reported(1)[0])
    return path


@pytest.fixture
def truth(tmp_path) -> Path:
    path = tmp_path / "truth.csv.gz"
    path.write_bytes(gzip.compress(reported(1)[1].encode()))
    return path


def test_it_writes_a_pack_that_finds_more(city, recording, truth, tmp_path):
    out = tmp_path / "out"
    done = run(recording, "--truth", truth, "--city", city, "--out", out, "--no-expectation")
    assert done.exit_code == 0, done.output
    assert "60 > 40 m" in done.output or "60 > 20 m" in done.output
    assert load_pack(out).version != load_pack(city).version
    for name in ("city.toml", "grid.geojson"):
        assert (out / name).read_bytes() == (city / name).read_bytes()
    f1 = {}
    for name, pack in (("before", city), ("after", out)):
        replayed = tmp_path / name
        arguments = ["replay", str(recording), "--city", str(pack), "--out", str(replayed)]
        assert CliRunner().invoke(main, arguments).exit_code == 0
        scored = CliRunner().invoke(main, ["evaluate", str(replayed), "--truth", str(truth), "--json"])
        f1[name] = json.loads(scored.stdout)["pair_f1"]
    assert f1["before"] < 0.6 < 0.9 < f1["after"]


def test_machines_are_told_what_was_learnt_and_what_is_expected(city, recording, truth, tmp_path):
    done = run(recording, "--truth", truth, "--city", city, "--out", tmp_path / "out", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["expected"]["pair_f1"] > told["before"]["pair_f1"]
    assert set(told["groups"]) == {"lights", "trees"}


def test_learning_ends_where_it_is_told_to(city, recording, truth, tmp_path):
    arguments = (recording, "--truth", truth, "--city", city, "--no-expectation", "--json", "--out")
    all_of_it = json.loads(run(*arguments, tmp_path / "all").stdout)
    early = json.loads(run(*arguments, tmp_path / "early", "--until", "2026-03-15").stdout)
    assert early["reports"] < all_of_it["reports"]
    nothing = run(*arguments, tmp_path / "nothing", "--until", "2020-01-01")
    assert nothing.exit_code == 1
    assert "no category group has" in nothing.output


def test_without_a_truth_the_feedback_of_dispatchers_is_learnt_from(tmp_path):
    day = tmp_path / "day.jsonl.gz"
    simulated = CliRunner().invoke(
        main,
        [
            "simulate",
            "--city",
            str(SAMPLE),
            "--out",
            str(day),
            "--truth",
            str(tmp_path / "truth.csv"),
            "--hours",
            "24",
            "--rate",
            "0.2",
            "--feedback",
        ],
    )
    assert simulated.exit_code == 0, simulated.output
    out = tmp_path / "out"
    done = run(day, "--city", SAMPLE, "--out", out, "--no-expectation")
    assert done.exit_code == 0, done.output
    assert re.search(r"feedback: \d+ incidents seen to, \d+ pairs of them called one event, \d+ reports", done.output)
    assert load_pack(out).version != load_pack(SAMPLE).version
    told = json.loads(run(day, "--city", SAMPLE, "--out", tmp_path / "again", "--no-expectation", "--json").stdout)
    assert told["feedback"]["seen_to"] > told["feedback"]["duplicates"] > 0


def test_feedback_about_incidents_of_another_pack_is_refused_in_words(city, tmp_path):
    messages, _ = reported(1)
    said = {"id": "f", "time": DAY_MS, "action": "close", "incident_id": "990100-lights-" + "0" * 32}
    path = tmp_path / "days.jsonl"
    write_recording(path, [*messages, RecordedMessage("dispatch.feedback", json.dumps(said).encode())])
    done = run(path, "--city", city, "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert "1 others are named, so --city may not be the pack that they were made with" in done.output


def test_a_recording_that_neither_truth_nor_feedback_goes_with_is_refused(city, recording, tmp_path):
    done = run(recording, "--city", city, "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert "no `dispatch.feedback`" in done.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("report_id\nr1\n", "no column 'cluster_id'"),
        ("report_id,cluster_id\nelsewhere,1\n", "none of them, such as 'elsewhere', is in the recording"),
        ("report_id,cluster_id\nr1,\n", "no category group has 4 labelled reports"),
    ],
)
def test_a_truth_that_teaches_nothing_is_refused_in_words(city, recording, tmp_path, text, says):
    truth = tmp_path / "truth.csv"
    truth.write_text(text)
    done = run(recording, "--truth", truth, "--city", city, "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert says in done.output
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_in_it_is_not_written_over(city, recording, truth):
    done = run(recording, "--truth", truth, "--city", city, "--out", city)
    assert done.exit_code == 1
    assert "there is something already" in done.output


def test_what_is_not_there_is_named(city, truth, tmp_path):
    done = run(tmp_path / "gone.jsonl", "--truth", truth, "--city", city, "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert "no such recording" in done.output
