"""What a benchmark found, said and, with `--save`, kept with date, commit and machine."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def tell(benchmark: str, found: Mapping[str, object]) -> None:
    """Print the result as JSON; with `--save` among the arguments also write `results/BENCHMARK-DATE.json`."""
    date = datetime.now(UTC).date().isoformat()
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    machine = f"{platform.machine()}, Python {platform.python_version()}"
    result = {"benchmark": benchmark, "date": date, "commit": commit, "machine": machine, **found}
    text = json.dumps(result, indent=2)
    print(text)
    if "--save" in sys.argv:
        folder = ROOT / "benchmarks" / "results"
        folder.mkdir(exist_ok=True)
        (folder / f"{benchmark}-{date}.json").write_text(text + "\n")
