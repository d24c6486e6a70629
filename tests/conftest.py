"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Deterministic: the same examples on every run, and no wall-clock deadline on a noisy machine.
settings.register_profile("city", derandomize=True, deadline=None, max_examples=60, database=None)
settings.load_profile("city")


@pytest.fixture(scope="session")
def city_data() -> Path:
    """The folder of real recorded data, which is not part of the repository."""
    root = Path(__file__).resolve().parent.parent
    folder = Path(os.environ.get("CITYBRAIN_DATA", root.parent / "shared" / "data"))
    if not (folder / "boston").is_dir():
        message = f"no recorded data in {folder}; set CITYBRAIN_DATA"
        if os.environ.get("CITYBRAIN_REQUIRE_DATA") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return folder
