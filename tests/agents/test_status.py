"""`citybrain status` says what a folder or a database holds, and in one line why it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agents.commands import main

HOT = '{"topic": "hotline.tickets", "value": {"id": "%s", "time": "2026-06-01T08:0%d:00+08:00", "category": "%s", "lon": 119.95, "lat": 38.75}}\n'  # noqa: E501
SAMPLE = "packs/sample"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    recording = tmp_path / "day.jsonl"
    recording.write_text("".join(HOT % (number, number, "09005") for number in range(3)) + HOT % ("q", 5, "??x"))
    assert run("replay", recording, "--city", SAMPLE, "--out", tmp_path / "out").exit_code == 0
    return tmp_path / "out"


def test_a_folder_is_told_in_tables_and_every_row_as_json(folder):
    told = run("status", "--from", folder)
    assert told.exit_code == 0, told.output
    assert "店外经营" in told.output
    lines = told.output.splitlines()
    assert lines[lines.index("Reports, raw and merged") + 2].split() == ["hotline", "4", "2", "2", *"0000"]
    answer = json.loads(run("status", "--from", folder, "--json").output)
    assert sum(one["collapsed"] for one in answer["reports_by_hour"]) == 2
    assert {one["of"]: one["rows"] for one in answer["freshness"]} == {
        "assignments": 4, "dead_letters": 0, "incidents": 2,
    }  # fmt: skip


def test_a_file_that_is_damaged_is_named_with_its_line(folder):
    path = folder / "incidents.jsonl"
    path.write_bytes(path.read_bytes() + b"{\n")
    result = run("status", "--from", folder)
    assert result.exit_code == 1
    assert f"{path}:3: " in result.output


@pytest.mark.parametrize(
    ("place", "code", "said"),
    [
        ("no-such-folder", 1, "there is no folder no-such-folder"),
        ("ftp://x", 2, "is neither a folder"),
        ("http://127.0.0.1:9", 1, "cannot reach a worker at http://127.0.0.1:9"),
        ("chdb:///no/such/path", 1, "there is no embedded ClickHouse in /no/such/path"),
    ],
)
def test_a_place_that_has_no_answer_is_one_line(place, code, said):
    result = run("status", "--from", place)
    assert result.exit_code == code
    assert said in result.output
