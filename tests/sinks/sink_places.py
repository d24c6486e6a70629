"""A ClickHouse for one test: the embedded engine or a server, behind the same handful of verbs."""

from __future__ import annotations

from pathlib import Path

from sinks.clickhouse import ClickHouseSink
from sinks.clickhouse_front import FrontProcess


class Place:
    """A ClickHouse of this test's own: `sink()` opens it, `restart()` ends whatever serves it and starts it again."""

    def __init__(self, folder: Path, front: FrontProcess | None, database: str) -> None:
        self.front = front
        self._folder = folder
        self._database = database
        self._sinks: list[ClickHouseSink] = []

    @property
    def dsn(self) -> str:
        if self.front is None:
            return f"chdb://{self._folder}?database={self._database}"
        return f"clickhouse://127.0.0.1:{self.front.port}/{self._database}"

    def sink(self, **settings: float) -> ClickHouseSink:
        sink = ClickHouseSink(self.dsn, **settings)  # type: ignore[arg-type]
        self._sinks.append(sink)
        return sink

    def restart(self) -> None:
        """A server is killed and started on the same port; the embedded engine goes with the process's handles."""
        if self.front is None:
            for sink in self._sinks:
                sink._disconnect()
        else:
            self.front.kill()
            self.front = FrontProcess(self.front.path, self.front.port)

    def close(self) -> None:
        for sink in self._sinks:
            sink._disconnect()
