"""Lines of the log: one object each whatever happens, for people otherwise; masked, bounded, and at the level asked."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agents.log_lines import JsonLines, ReadableLines, Repetitions, hear
from agents.settings import Settings, SettingsError

ROOT = Path(__file__).resolve().parents[2]

TROUBLE = """
import gc, logging, sys, threading, warnings
from agents.log_lines import set_up_logging
set_up_logging(as_json=True)
warnings.warn("deprecated\\nin two lines")
print("a library prints 13987654321")
print("two\\nlines", file=sys.stderr)
sys.stderr.write("half a line, ")
sys.stderr.write("and its end\\n")
logging.getLogger("library").error("%d arguments that do not fit", "text")
def fail():
    raise ValueError("in a thread, of 13987654321")
thread = threading.Thread(target=fail)
thread.start()
thread.join()
class Bad:
    def __del__(self):
        raise RuntimeError("while it goes")
bad = Bad()
del bad
gc.collect()
raise KeyError("13987654321")
"""


def record(
    message: str, *arguments: Any, at_s: float = 0.0, level: int = logging.ERROR, **fields: Any
) -> logging.LogRecord:
    made = logging.LogRecord("citybrain.test", level, __file__, 1, message, arguments, None)
    made.created = at_s
    made.__dict__.update(fields)
    return made


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip


def test_whatever_goes_past_the_log_is_in_it() -> None:
    done = run("-c", TROUBLE)
    assert done.returncode == 1
    assert done.stdout == ""
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(line["logger"], line["level"]) for line in lines] == [
        ("py.warnings", "WARNING"),
        ("stdout", "WARNING"),
        ("stderr", "WARNING"),
        ("stderr", "WARNING"),
        ("stderr", "WARNING"),
        ("library", "ERROR"),
        ("citybrain", "CRITICAL"),
        ("citybrain", "CRITICAL"),
        ("citybrain", "CRITICAL"),
    ]
    assert lines[1]["message"] == "a library prints 139****4321"
    assert lines[4]["message"] == "half a line, and its end"
    assert [line["error"] for line in lines[6:]] == ["ValueError", "RuntimeError", "KeyError"]
    assert all(line["event"] == "uncaught" and "Traceback" in line["traceback"] for line in lines[6:])
    assert "13987654321" not in done.stderr


def test_why_a_worker_does_not_start_is_a_line_of_its_log() -> None:
    done = run("-m", "agents", "worker", "--json", "--brokers", "127.0.0.1:1", "--test-key")
    (line,) = [json.loads(text) for text in done.stderr.splitlines()]
    assert done.returncode == 1
    assert (line["level"], line["event"]) == ("CRITICAL", "not_started")
    assert line["message"] == "no Kafka at 127.0.0.1:1 (Connection refused); start it, or name another with --brokers"


def test_without_json_it_is_a_line_for_people() -> None:
    done = run("-m", "agents", "worker", "--brokers", "127.0.0.1:1", "--test-key")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: no Kafka at 127.0.0.1:1")
    made = record("it waits for %s", "ClickHouse", sink="clickhouse", event="sink_away", wait_s=2.0)
    assert (
        ReadableLines().format(made).endswith("ERROR citybrain.test it waits for ClickHouse sink=clickhouse wait_s=2.0")
    )


def test_a_line_has_its_time_in_utc_and_the_fields_that_are_known() -> None:
    made = record("the ticket of %s", "13987654321", at_s=1_780_000_000.25, offset=12_345_678, value="井盖", topic="t")
    assert json.loads(JsonLines().format(made)) == {
        "time": "2026-05-28T20:26:40.250Z",
        "level": "ERROR",
        "logger": "citybrain.test",
        "message": "the ticket of 139****4321",
        "topic": "t",
        "offset": 12_345_678,
    }


# ----------------------------------------------------------------------------------------------------- repetitions


def test_five_alike_pass_in_a_minute_and_the_next_says_how_many_did_not() -> None:
    few = Repetitions()
    passed = [made for second in range(130) if few.filter(made := record("away", at_s=second))]
    assert [made.created for made in passed] == [0, 1, 2, 3, 4, 60, 61, 62, 63, 64, 120, 121, 122, 123, 124]
    assert [getattr(made, "suppressed", 0) for made in passed] == [0] * 5 + [55] + [0] * 4 + [55] + [0] * 4


def test_what_differs_in_text_or_in_what_it_is_of_is_not_alike() -> None:
    few = Repetitions(most=1)
    assert few.filter(record("%s is away", "clickhouse"))
    assert few.filter(record("%s is away", "kafka"))
    assert few.filter(record("%s is back", "kafka"))
    assert few.filter(record("%s is back", "kafka", level=logging.WARNING))
    assert not few.filter(record("%s is back", "kafka"))


def test_debug_is_never_left_out() -> None:
    few = Repetitions(most=1)
    assert all(few.filter(record("a detail", level=logging.DEBUG)) for _ in range(10))


def test_no_more_kinds_are_remembered_than_it_says() -> None:
    few = Repetitions(most=1)
    for number in range(10_000):
        assert few.filter(record(f"kind {number}"))
    assert len(few._kinds) == 256


# ---------------------------------------------------------------------------------------------------------- levels


@pytest.fixture
def levels() -> Iterator[None]:
    """Puts every logger's level back."""
    names = ["", "aiokafka", "aiokafka.conn", "faust", "mode", "urllib3"]
    names += ["mode.timers", "clickhouse_connect", "agents.batch_transport", "aiokafka.producer"]
    former = {name: logging.getLogger(name).level for name in names}
    yield
    for name, level in former.items():
        logging.getLogger(name).setLevel(level)


@pytest.mark.parametrize(
    ("level", "heard", "library", "records"),
    [
        ("DEBUG", logging.DEBUG, logging.DEBUG, logging.INFO),
        ("INFO", logging.INFO, logging.WARNING, logging.WARNING),
        ("ERROR", logging.ERROR, logging.ERROR, logging.ERROR),
    ],
)
def test_the_level_asked_for_is_heard_and_libraries_are_no_louder(
    levels: None, level: str, heard: int, library: int, records: int
) -> None:
    """`aiokafka.conn` would log what is in the messages at DEBUG."""
    hear(level)
    assert logging.getLogger("citybrain.worker").getEffectiveLevel() == heard
    assert logging.getLogger("aiokafka").getEffectiveLevel() == library
    assert logging.getLogger("aiokafka.conn").getEffectiveLevel() == records


def test_a_level_that_is_none_is_refused_by_its_name() -> None:
    with pytest.raises(SettingsError, match="log_level = 'chatty': must be one of DEBUG, INFO, WARNING, ERROR"):
        Settings(log_level="chatty")
