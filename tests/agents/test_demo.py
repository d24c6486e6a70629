"""`make demo` in small: the first thing that anybody runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "packs" / "sample"


def test_two_hours_of_the_sample_city_are_played_decided_and_accounted_for(tmp_path: Path) -> None:
    """Embedded broker, real worker, embedded ClickHouse; every element comes out as one thing, all in one folder."""
    elsewhere, out = tmp_path / "elsewhere", tmp_path / "out"
    elsewhere.mkdir()
    command = [sys.executable, "-m", "agents", "demo", "--hours", "2", "--city", str(SAMPLE), "--port", "0", "--json"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CITYBRAIN_")}
    environment["PYTHONPATH"] = str(ROOT)
    command += ["--out", str(out)]
    done = subprocess.run(command, cwd=elsewhere, capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr.decode()
    told = json.loads(done.stdout)
    assert told["reports"] == sum(told["outcomes"].values()) > 100
    assert told["elements"] == told["reports"] + told["quiet_readings"] + sum(told["dead_letters"].values())
    assert 0 < told["incidents"] < told["reports"]
    asked = [sys.executable, "-m", "agents", "status", "--from", f"chdb://{out / 'clickhouse'}", "--json"]
    figures = json.loads(subprocess.run(asked, capture_output=True, env=environment, check=True).stdout)
    assert sum(one["incidents"] for one in figures["open_by_category"]) == told["incidents"] - told["suspected"]
    assert sum(one["dead_letters"] for one in figures["dead_letters_by_reason"]) == sum(told["dead_letters"].values())
    assert list(elsewhere.iterdir()) == [], "nothing is left where it was started"
