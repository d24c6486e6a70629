"""How many rows a second the ClickHouse sink writes, on the embedded engine and through HTTP, beside other ways.

    python -m benchmarks.clickhouse_sink [--rows 50000] [--rounds 3]

The workload is seeded: assignments as a storm makes them, one for each report, and incidents with two sources and
two pieces of evidence.  Every way writes the same rows into the same tables, and the count in the table is checked.
"In Python" is the share during which the interpreter is busy and a worker's other thread waits for it.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from sinks.clickhouse import COLUMNS_OF_TABLE, ClickHouseSink, columns_of
from sinks.clickhouse_front import FrontProcess
from streams.messages import Assignment, Evidence, Incident, RunnerUp, Why

EPOCH_MS = 1_780_272_000_000  # 2026-06-01T00:00:00Z


def times(rng: random.Random, count: int) -> list[str]:
    ms = EPOCH_MS + np.array([rng.randrange(86_400_000) for _ in range(count)], dtype=np.int64)
    return [text + "Z" for text in np.datetime_as_string(ms.astype("datetime64[ms]"), unit="ms").tolist()]


def assignments(count: int) -> list[Assignment]:
    rng = random.Random(1)
    at = times(rng, count)
    ids = [f"361000-road-{rng.getrandbits(128):032x}" for _ in range(max(1, count // 5))]
    rows = []
    for n in range(count):
        distance_m = rng.randrange(500) / 10
        points = round(1000 * (1 - distance_m / 50))
        why = Why(rule="best_open", radius_m=50.0, window_s=7200, terms={"nearness": points})
        if n % 3 == 0:
            why.runner_up = RunnerUp(rng.choice(ids), points // 2, 44.4)
        rows.append(
            Assignment(
                origin=f"hotline.tickets:{n % 8}:{n}:0",
                revision=0,
                source="hotline",
                report_id=f"T{n:09d}",
                event_time=at[n],
                incident_id=rng.choice(ids),
                outcome="joined" if n % 4 else "opened",
                score=points,
                distance_m=distance_m,
                gap_s=rng.randrange(36_000) / 10,
                category=f"900{n % 12:02d}",
                why=why,
            )
        )
    return rows


def incidents(count: int) -> list[Incident]:
    rng = random.Random(2)
    at = times(rng, count)
    return [
        Incident(
            incident_id=f"361000-road-{rng.getrandbits(128):032x}",
            version=rng.randrange(1, 9),
            status="open",
            category=f"900{n % 12:02d}",
            category_name="道路积水",
            priority=1 + n % 4,
            department="市政",
            grid_code=f"361002001001{n % 999:03d}",
            community_code="361002001001",
            street_code="361002001",
            county_code="361002",
            layer_codes={"综治": f"3610020010010{n % 99:02d}"},
            lon=116.3 + rng.random() / 10,
            lat=27.9 + rng.random() / 10,
            accuracy_m=5.0,
            opened_at=at[n],
            first_report_at=at[n],
            last_report_at=at[n],
            updated_at=at[n],
            report_count=2,
            repeat_count=0,
            sources={"hotline": 1, "iot": 1},
            pack_version="0f3a55aa",
            evidence=[Evidence("hotline", f"T{n}"), Evidence("iot", f"R{n}")],
        )
        for n in range(count)
    ]


# ------------------------------------------------------------------------------------------- the ways to write rows


def as_columns(client: Any, table: str, rows: list[Any]) -> None:
    """What the sink does."""
    types = COLUMNS_OF_TABLE[table]
    client.insert(
        table,
        columns_of(table, rows),
        column_names=list(types),
        column_type_names=list(types.values()),
        column_oriented=True,
    )


def as_rows(client: Any, table: str, rows: list[Any]) -> None:
    """The driver's everyday way: a list of rows with datetimes."""
    types = COLUMNS_OF_TABLE[table]

    def plain(value: Any, kind: str) -> Any:
        if "DateTime64" in kind and value is not None:
            return datetime.fromisoformat(value).astimezone(UTC)
        if isinstance(value, Why):
            return msgspec.json.encode(value).decode()
        if isinstance(value, list):
            return [(one.source, one.report_id) for one in value]
        return value

    data = [[plain(getattr(row, name), kind) for name, kind in types.items()] for row in rows]
    client.insert(table, data, column_names=list(types), column_type_names=list(types.values()))


def as_json(client: Any, table: str, rows: list[Any]) -> None:
    """JSON lines, which the engine parses: cheap in Python, dear in the engine."""
    lines = msgspec.json.Encoder().encode_lines(rows)
    client.raw_insert(table, column_names=list(COLUMNS_OF_TABLE[table]), insert_block=lines, fmt="JSONEachRow")


WAYS: dict[str, Callable[[Any, str, list[Any]], None]] = {"columns": as_columns, "json": as_json, "rows": as_rows}


def measure(sink: ClickHouseSink, table: str, rows: list[Any], rounds: int) -> None:
    client = sink._ask(lambda client: client)
    for name, way in WAYS.items():
        client.command(f"TRUNCATE TABLE {table}")
        best_s, cpu_s = float("inf"), 0.0
        for _ in range(rounds):
            start_s, start_cpu_s = time.perf_counter(), time.thread_time()
            way(client, table, rows)
            took_s = time.perf_counter() - start_s
            if took_s < best_s:
                best_s, cpu_s = took_s, time.thread_time() - start_cpu_s
        assert sink.counts()[table] == len(rows), "every way leaves each key once"
        place = "chdb" if sink.dsn.embedded else "http"
        share = f"{100 * cpu_s / best_s:4.0f} %" if not sink.dsn.embedded else "     -"
        print(f"{place:5} {table:12} {name:8} {len(rows) / best_s:12,.0f} rows/s   in Python {share}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine}")
    work: dict[str, list[Any]] = {"assignments": assignments(options.rows), "incidents": incidents(options.rows)}
    for table, rows in work.items():
        start_s = time.perf_counter()
        columns_of(table, rows)
        took_s = time.perf_counter() - start_s
        print(f"      {table:12} structs to columns {len(rows) / took_s:,.0f} rows/s")
    with tempfile.TemporaryDirectory() as folder:
        with FrontProcess(Path(folder) / "front") as front:
            run(ClickHouseSink(front.dsn), work, options.rounds)
        run(ClickHouseSink(f"chdb://{folder}/embedded"), work, options.rounds)


def run(sink: ClickHouseSink, work: dict[str, list[Any]], rounds: int) -> None:
    sink.prepare()
    for table, rows in work.items():
        measure(sink, table, rows, rounds)
    sink.close()


if __name__ == "__main__":
    main()
