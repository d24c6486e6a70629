"""Where the sink tests write."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from sink_places import Place

from sinks.clickhouse_front import FrontProcess

_numbers = count()


@pytest.fixture(scope="session")
def shared_front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontProcess]:
    with FrontProcess(tmp_path_factory.mktemp("front")) as front:
        yield front


@pytest.fixture(params=["chdb", "clickhouse"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """An empty database, in the embedded engine and behind HTTP."""
    front = request.getfixturevalue("shared_front") if request.param == "clickhouse" else None
    place = Place(tmp_path, front, f"test_{next(_numbers)}")
    yield place
    place.close()
    if front is not None:
        front.fault("none")


@pytest.fixture
def server(shared_front: FrontProcess, tmp_path: Path) -> Iterator[Place]:
    """An empty database behind HTTP only."""
    place = Place(tmp_path, shared_front, f"test_{next(_numbers)}")
    yield place
    place.close()
    shared_front.fault("none")


@pytest.fixture(params=["chdb", "clickhouse"])
def own_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """As `place`, but nobody else uses the server, so it may be restarted."""
    front = FrontProcess(tmp_path) if request.param == "clickhouse" else None
    place = Place(tmp_path, front, "citybrain")
    yield place
    place.close()
    if place.front is not None:
        place.front.stop()
