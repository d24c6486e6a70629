"""City packs that several tests use."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from agents.commands import main

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def boston_pack(city_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pack that `make packs` makes: the repository's settings and a grid of the city's neighbourhoods."""
    out = tmp_path_factory.mktemp("packs") / "boston"
    shutil.copytree(ROOT / "packs" / "boston", out)
    boundaries = city_data / "boston" / "neighborhoods.geojson.gz"
    done = CliRunner().invoke(
        main, ["build-pack", "--boundaries", str(boundaries), "--cell-m", "150", "--out", str(out)]
    )
    assert done.exit_code == 0, done.output
    return out
