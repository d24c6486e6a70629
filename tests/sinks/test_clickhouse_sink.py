"""One set of tests for the embedded engine and for a server."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sink_rows as rows
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sink_places import Place

from sinks.clickhouse import COLUMNS_OF_TABLE, ClickHouseSink, columns_of, milliseconds
from sinks.clickhouse_front import FrontProcess
from sinks.errors import SinkFull, SinkRefused, SinkUnavailable
from sinks.memory import MemorySink
from streams.messages import Assignment, DeadLetterRecord, Incident

# The database is a function's fixture on purpose: an example adds to what earlier ones left, and is judged by a
# model that does the same, or works with ids of its own.
real_engine = settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])


def prepared(place: Place, **arguments: float) -> ClickHouseSink:
    sink = place.sink(**arguments)
    sink.prepare()
    return sink


def by_key(assignments: list[Assignment]) -> dict[tuple[str, int], Assignment]:
    return {(one.origin, one.revision): one for one in assignments}


# ------------------------------------------------------------------------------------------- what goes in comes out


@real_engine
@given(
    st.lists(rows.incidents, max_size=20),
    st.lists(rows.assignments(), max_size=20),
    st.lists(rows.dead_letters, max_size=20),
    st.sampled_from([4, 50]),
)
def test_every_field_comes_back_as_it_went_in(
    place: Place,
    incidents: list[Incident],
    assignments: list[Assignment],
    dead_letters: list[DeadLetterRecord],
    max_rows: int,
) -> None:
    """Whatever the contract allows in a field, in batches of any size, reads back as the memory sink has it."""
    sink, model = prepared(place, max_rows=max_rows, max_age_s=1e9), MemorySink()
    ask(sink, "TRUNCATE TABLE incidents", "TRUNCATE TABLE assignments", "TRUNCATE TABLE dead_letters")
    for start in range(0, 20, 5):
        batch = slice(start, start + 5)
        sink.write(assignments[batch], incidents[batch], dead_letters[batch])
        model.write(assignments[batch], incidents[batch], dead_letters[batch])
    sink.flush()
    assert sink.incidents() == model.incidents
    stored = sink.assignments()
    assert by_key(stored) == by_key(model.assignments)
    assert len(stored) == len(by_key(stored))
    assert sink.counts()["dead_letters"] == len({(one.origin, one.reason) for one in dead_letters})
    sink.close()


def ask(sink: ClickHouseSink, *statements: str) -> Any:
    answer = None
    for statement in statements:
        answer = sink._ask(lambda client, statement=statement: client.command(statement))
    return answer


def insert(sink: ClickHouseSink, *states: Incident) -> None:
    """Past the buffer, which would keep only one state of an incident."""
    types = COLUMNS_OF_TABLE["incidents"]
    sink._ask(
        lambda client: client.insert(
            "incidents",
            columns_of("incidents", list(states)),
            column_names=list(types),
            column_type_names=list(types.values()),
            column_oriented=True,
        )
    )


OLD = {"version": 3, "repeat_count": 0, "updated_at": "2026-06-01T00:00:01.000Z"}
REPEATED = {"version": 3, "repeat_count": 1, "updated_at": "2026-06-01T00:00:02.000Z"}
REWRITTEN = {"version": 3, "repeat_count": 1, "updated_at": "2026-06-01T00:00:03.000Z"}
NEWER = {"version": 4, "repeat_count": 1, "updated_at": "2026-06-01T00:00:04.000Z"}
WHICH_STANDS = {
    "a repeat raises repeat_count and not version": (OLD, REPEATED, REPEATED),
    "a stale writer's older repeat_count comes late": (REPEATED, OLD, REPEATED),
    "among equals the last inserted": (REPEATED, REWRITTEN, REWRITTEN),
    "among equals the last inserted, the other way round": (REWRITTEN, REPEATED, REPEATED),
    "a redelivered older version comes late": (NEWER, REPEATED, NEWER),
}


@pytest.mark.parametrize("blocks", [1, 2], ids=["one block", "two blocks"])
def test_of_two_states_the_engine_keeps_the_one_that_stands(place: Place, blocks: int) -> None:
    sink = prepared(place)
    first, second, stands = (
        [
            rows.incident(number, department=case, **states[which])
            for number, (case, states) in enumerate(WHICH_STANDS.items())
        ]
        for which in range(3)
    )
    others = [rows.incident(number) for number in range(10, 50)]
    if blocks == 1:
        insert(sink, *others, *first, *second)
    else:
        insert(sink, *others, *first)
        insert(sink, *second, *others)
    assert sink.incidents()[: len(stands)] == stands, "before the merge"
    ask(sink, "OPTIMIZE TABLE incidents FINAL")
    assert ask(sink, "SELECT count() FROM incidents") == len(stands) + len(others)
    assert sink.incidents()[: len(stands)] == stands, "after the merge"


def test_the_declared_column_types_are_the_tables(place: Place) -> None:
    sink = prepared(place)
    for table, types in COLUMNS_OF_TABLE.items():
        describe = f"DESCRIBE TABLE {table} SETTINGS print_pretty_type_names = 0"
        described = sink._ask(lambda client, describe=describe: client.query(describe).result_rows)
        assert {row[0]: row[1] for row in described if row[2] != "MATERIALIZED"} == types
        kinds = {"incidents": Incident, "assignments": Assignment, "dead_letters": DeadLetterRecord}
        assert tuple(types) == kinds[table].__struct_fields__


def test_a_recording_of_ten_years_goes_in_with_one_flush(place: Place) -> None:
    """120 months are 120 partitions, and ClickHouse refuses more than 100 in an insert unless told otherwise."""
    sink = prepared(place)
    months = [datetime(2001, 1, 1, tzinfo=UTC) + timedelta(days=30.44 * number) for number in range(120)]
    sink.add_assignments([rows.assignment(n, event_time=rows.rfc3339(at)) for n, at in enumerate(months)])
    sink.flush()
    assert sink.counts()["assignments"] == 120


# -------------------------------------------------------------------------------------------------- what explain asks


def test_an_incident_and_its_reports_can_be_asked_for(place: Place) -> None:
    sink = prepared(place)
    first, other = rows.incident(1), rows.incident(2)
    mine = [
        rows.assignment(1, outcome="opened", event_time="2026-06-01T00:00:00.000Z"),
        rows.assignment(2, event_time="2026-06-01T00:00:05.000Z"),
        rows.assignment(2, event_time="2026-06-01T00:00:05.000Z", revision=1, score=9),
    ]
    elsewhere = rows.assignment(3, report_id="T1", source="video", incident_id=other.incident_id)
    nowhere = rows.assignment(4, incident_id=None, outcome="not_an_event", score=None, distance_m=None, gap_s=None)
    sink.write([*reversed(mine), elsewhere, nowhere], [first, other], [])
    sink.flush()

    assert sink.incident(first.incident_id) == first
    assert sink.incident("no such") is None
    assert sink.incident("' OR 1=1 --") is None
    assert sink.assignments_of(first.incident_id) == mine
    assert sink.assignments_of(first.incident_id, limit=2) == mine[:2]
    assert sink.assignment_of_report(None, "T1") == [mine[0], elsewhere]
    assert sink.assignment_of_report("video", "T1") == [elsewhere]
    assert sink.assignment_of_report("hotline", "T4") == [nowhere]
    assert sink.counts() == {"incidents": 2, "assignments": 5, "dead_letters": 0}


def test_a_reader_of_a_place_without_a_database_makes_none(place: Place) -> None:
    reader = ClickHouseSink(place.dsn, must_exist=True)
    for _ in range(2):
        with pytest.raises(SinkRefused, match=r"there is no database test_.* check the address"):
            reader.incident("any")
    prepared(place)
    assert reader.incident("any") is None
    reader.close()


def test_a_reader_of_a_misspelt_folder_makes_none(tmp_path: Path) -> None:
    with pytest.raises(SinkRefused, match="there is no database"):
        ClickHouseSink(f"chdb://{tmp_path}/typo", must_exist=True).counts()
    assert list(tmp_path.iterdir()) == []


def test_the_views_show_each_key_once(place: Place) -> None:
    sink = prepared(place)
    for _ in range(2):
        sink.write([rows.assignment()], [rows.incident()], [rows.dead_letter()])
        sink.flush()
    for view in ("incidents_current", "assignments_current", "dead_letters_current"):
        assert ask(sink, f"SELECT count() FROM {view}") == 1


# ------------------------------------------------------------------------------------------------------- the buffer


class Ticker:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_flush_is_due_by_age_or_by_size(place: Place) -> None:
    clock = Ticker()
    sink = ClickHouseSink(place.dsn, max_rows=3, max_age_s=1.0, clock=clock)
    assert not sink.due()
    sink.add_incidents([])
    assert sink.rows == 0
    sink.add_incidents([rows.incident()])
    assert not sink.due()
    assert not sink.due(100.9)
    assert sink.due(101.0)
    clock.now_s = 100.5
    sink.add_assignments([rows.assignment()])
    assert sink.due(101.0), "the age is that of the oldest row"
    sink.add_dead_letters([rows.dead_letter()])
    assert sink.full
    assert sink.due(100.5)
    with pytest.raises(SinkRefused):
        sink.flush()  # no tables yet
    clock.now_s = 100.9
    sink.add_assignments([rows.assignment(2)])
    assert sink.due(101.0), "what could not be written keeps its age"
    sink.prepare()
    assert sink.flush() == {"incidents": 1, "assignments": 2, "dead_letters": 1}
    assert not sink.due(1e9)
    sink.add_assignments([rows.assignment(3)])
    assert not sink.due(101.8), "a new row has its own age"
    sink.close()


def test_a_full_buffer_refuses_more_and_says_what_to_do() -> None:
    sink = ClickHouseSink("clickhouse://127.0.0.1:1/db", max_rows=2)
    sink.add_assignments([rows.assignment(1), rows.assignment(2), rows.assignment(3)])
    assert sink.full
    sink.add_incidents([rows.incident()])  # the rest of the batch of a caller who looked before
    with pytest.raises(SinkFull, match="4 rows wait to be written, twice max_rows: flush first"):
        sink.add_incidents([rows.incident(2)])
    assert sink.rows == 4
    sink.add_incidents([])


def test_a_batch_is_taken_whole_or_not_at_all(server: Place) -> None:
    """Full: nothing of it, away: all of it, so that the caller knows whether to write it again."""
    assert server.front is not None
    sink = prepared(server, max_rows=1)
    server.front.fault("unavailable", count=1)
    with pytest.raises(SinkUnavailable):
        sink.write([rows.assignment(1)], [rows.incident(1)], [rows.dead_letter(1)])
    assert sink.rows == 3
    with pytest.raises(SinkFull):
        sink.write([rows.assignment(2)], [rows.incident(2)], [rows.dead_letter(2)])
    assert sink.rows == 3
    assert sink.flush() == {"incidents": 1, "assignments": 1, "dead_letters": 1}
    sink.write([rows.assignment(2)], [rows.incident(2)], [rows.dead_letter(2)])
    assert sink.counts() == {"incidents": 2, "assignments": 2, "dead_letters": 2}


def test_one_thread_may_add_while_another_flushes(place: Place) -> None:
    """As in a worker, whose event loop takes batches while a thread writes."""
    sink, model = prepared(place, max_rows=200), MemorySink()

    def add() -> None:
        for number in range(300):
            batch = (
                [rows.assignment(number)],
                [rows.incident(number % 7, version=1 + number)],
                [rows.dead_letter(number)],
            )
            model.write(*batch)
            while sink.full:
                room.wait(10)
                room.clear()
            sink.add_assignments(batch[0])
            sink.add_incidents(batch[1])
            sink.add_dead_letters(batch[2])

    room = threading.Event()
    adding = threading.Thread(target=add)
    adding.start()
    while adding.is_alive() or sink.rows:
        sink.flush()
        room.set()
    adding.join()
    assert sink.incidents() == model.incidents
    assert sink.counts() == {"incidents": 7, "assignments": 300, "dead_letters": 300}


def test_many_changes_of_one_incident_take_one_row() -> None:
    sink = ClickHouseSink("clickhouse://127.0.0.1:1/db", max_rows=2)
    sink.add_incidents([rows.incident(version=number) for number in range(1, 1000)])
    assert sink.rows == 1


@pytest.mark.parametrize("wrong", [{"max_rows": 0}, {"max_age_s": -1.0}])
def test_a_bound_out_of_range_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ClickHouseSink("chdb:///x", **wrong)


# ------------------------------------------------------------------------------------------------- when it is away


def test_a_restart_in_the_middle_loses_and_doubles_nothing(own_place: Place) -> None:
    sink, model = prepared(own_place), MemorySink()
    for number in range(6):
        incidents = [rows.incident(number // 2, version=1 + number), rows.incident(100 + number)]
        sink.write([rows.assignment(number)], incidents, [rows.dead_letter(number)])
        model.write([rows.assignment(number)], incidents, [rows.dead_letter(number)])
        if number == 2:
            sink.flush()
        if number in (2, 4):
            own_place.restart()
    sink.flush()
    assert sink.incidents() == model.incidents
    assert sink.assignments() == model.assignments
    assert sink.counts() == {"incidents": len(model.incidents), "assignments": 6, "dead_letters": 6}


def test_a_server_that_is_away_keeps_the_rows_here(tmp_path: Path) -> None:
    with FrontProcess(tmp_path) as front:
        sink = ClickHouseSink(front.dsn)
        sink.prepare()
        port = front.port
    sink.write([rows.assignment()], [rows.incident()], [])
    assert not sink.ping()
    with pytest.raises(SinkUnavailable, match=r"clickhouse://default@127\.0\.0\.1:\d+/citybrain: .*connection refused"):
        sink.flush()
    with pytest.raises(SinkUnavailable):
        sink.flush()
    assert sink.rows == 2
    assert sink.due(float("inf"))
    with FrontProcess(tmp_path, port):
        assert sink.ping(60)
        assert sink.flush() == {"incidents": 1, "assignments": 1, "dead_letters": 0}
        assert sink.rows == 0
        assert not sink.due(float("inf"))
        assert sink.counts() == {"incidents": 1, "assignments": 1, "dead_letters": 0}
        sink.close()


# The driver itself repeats an insert once whose connection broke; both attempts fail here.
@pytest.mark.parametrize(("fault", "count"), [("fail_inserts", 1), ("lose_answers", 2), ("unavailable", 1)])
def test_a_failed_insert_is_retried_without_loss_or_doubles(server: Place, fault: str, count: int) -> None:
    """What is in stays in, the rest is sent again; a block whose answer was lost is in twice and counts once."""
    assert server.front is not None
    sink = prepared(server)
    sink.write([rows.assignment(n) for n in range(5)], [rows.incident(n) for n in range(5)], [rows.dead_letter()])
    server.front.fault(fault, count=count)
    with pytest.raises(SinkUnavailable):
        sink.flush()
    sink.add_assignments([rows.assignment(n) for n in range(4, 8)])
    sink.flush()
    assert sink.counts() == {"incidents": 5, "assignments": 8, "dead_letters": 1}
    assert sink.rows_written["dead_letters"] == 1


@settings(real_engine, max_examples=5)
@given(
    st.lists(
        st.tuples(
            st.lists(rows.incidents, max_size=4),
            st.lists(rows.assignments(), max_size=4),
            st.sampled_from(["none", "fail_inserts", "lose_answers", "unavailable"]),
            st.integers(1, 3),
            st.booleans(),
        ),
        max_size=4,
    )
)
def test_any_mixture_of_faults_ends_in_the_same_state(server: Place, batches: list[Any]) -> None:
    """Failures of any kind at any insert, and batches written twice as after a crash, change nothing in the end."""
    assert server.front is not None
    server.front.fault("none")
    sink, model = prepared(server), MemorySink()
    ask(sink, "TRUNCATE TABLE incidents", "TRUNCATE TABLE assignments")
    for incidents, assignments, fault, count, redelivered in batches:
        model.write(assignments, incidents, [])
        server.front.fault(fault, count=count)
        for _ in range(2 if redelivered else 1):
            sink.add_incidents(incidents)
            sink.add_assignments(assignments)
            patiently_flush(sink)
    server.front.fault("none")
    sink.flush()
    assert sink.incidents() == model.incidents
    # Correcting one answer twice under one revision is not what the log does, but the last one stands all the same.
    assert by_key(sink.assignments()) == by_key(model.assignments)
    assert sink.counts()["assignments"] == len(by_key(model.assignments))
    sink.close()


def patiently_flush(sink: ClickHouseSink) -> None:
    for _ in range(10):
        try:
            sink.flush()
            return
        except SinkUnavailable:
            continue
    pytest.fail("the fault never went away")


def test_what_cannot_help_itself_is_refused_and_not_waited_for(server: Place) -> None:
    assert server.front is not None
    sink = prepared(server)
    sink.add_incidents([rows.incident()])
    server.front.fault("refuse_login", count=1)
    with pytest.raises(SinkRefused, match="refuses the login of user 'default': check user and password"):
        sink.flush()
    ask(sink, "RENAME TABLE incidents TO elsewhere")
    with pytest.raises(SinkRefused, match="incidents"):
        sink.flush()
    ask(sink, "RENAME TABLE elsewhere TO incidents")
    assert sink.flush()["incidents"] == 1


def test_a_value_the_column_cannot_hold_is_refused_with_its_column(place: Place) -> None:
    sink = prepared(place)
    sink.add_incidents([rows.incident(priority=300)])
    with pytest.raises(SinkRefused, match="priority"):
        sink.flush()


def test_an_error_never_shows_the_password() -> None:
    sink = ClickHouseSink("clickhouse://me:s3cret@127.0.0.1:1/db")
    with pytest.raises(SinkUnavailable) as caught:
        sink.prepare()
    chain, error = [], caught.value
    while error is not None:
        chain.append(f"{error!r} {error}")
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    assert "s3cret" not in " ".join(chain)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------------- the embedded engine


def test_a_folder_that_another_process_has_open_is_told_in_one_line(tmp_path: Path) -> None:
    with FrontProcess(tmp_path / "engine"):
        sink = ClickHouseSink(f"chdb://{tmp_path}/engine")
        with pytest.raises(SinkRefused, match=r"is open in process \d+, .* stop that one, or use a server") as caught:
            sink.prepare()
        assert "\n" not in str(caught.value)
        assert not sink.ping()
    sink.prepare()
    assert sink.ping(60)
    sink.close()


def test_this_process_has_one_folder_open_at_a_time(tmp_path: Path) -> None:
    first, second = ClickHouseSink(f"chdb://{tmp_path}/a"), ClickHouseSink(f"chdb://{tmp_path}/b")
    first.prepare()
    with pytest.raises(SinkRefused, match="open in another folder: close that one first") as caught:
        second.prepare()
    assert "\n" not in str(caught.value)
    first.close()
    second.prepare()
    second.close()


def test_two_sinks_of_one_process_share_a_folder(tmp_path: Path) -> None:
    """A worker's sink and the `explain` beside it."""
    writer, reader = ClickHouseSink(f"chdb://{tmp_path}"), ClickHouseSink(f"chdb://{tmp_path}")
    writer.prepare()
    writer.write([], [rows.incident()], [])
    writer.flush()
    assert reader.incident(rows.incident().incident_id) == rows.incident()
    writer.close()
    assert reader.ping(60)
    reader.close()


def test_a_place_that_cannot_be_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, complaint in ((tmp_path / "file", "is a file"), (tmp_path / "file" / "x", "Not a directory")):
        sink = ClickHouseSink(f"chdb://{path}")
        with pytest.raises(SinkRefused, match=complaint) as caught:
            sink.prepare()
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_what_a_killed_process_wrote_is_there_for_the_next(tmp_path: Path) -> None:
    """After flush has returned, a power cut of the process costs nothing, and its lock goes with it."""
    script = (
        "import os, signal, sys; sys.path[:0] = sys.argv[2:]\n"
        "import sink_rows as rows; from sinks.clickhouse import ClickHouseSink\n"
        "sink = ClickHouseSink(sys.argv[1]); sink.prepare(); sink.write([], [rows.incident()], []); sink.flush()\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    here = Path(__file__).parent
    dsn = f"chdb://{tmp_path}"
    done = subprocess.run([sys.executable, "-c", script, dsn, str(here), str(here.parent.parent)], check=False)
    assert done.returncode == -9
    sink = ClickHouseSink(dsn)
    assert sink.prepare() == []
    assert sink.incidents() == [rows.incident()]
    sink.close()


# ------------------------------------------------------------------------------------------------------------ times


@given(st.lists(st.datetimes(datetime(1900, 1, 1), datetime(2299, 12, 31)), max_size=20))
@example([])
@example([datetime(1969, 12, 31, 23, 59, 59, 999999), datetime(2024, 2, 29)])
def test_times_in_bulk_are_the_standard_librarys(times: list[datetime]) -> None:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    texts = [rows.rfc3339(at.replace(tzinfo=UTC)) for at in times]
    expected = [(datetime.fromisoformat(text) - epoch) // timedelta(milliseconds=1) for text in texts]
    assert milliseconds(texts).tolist() == expected


@pytest.mark.parametrize(
    "text",
    ["2026-06-01T00:00:00Z", "2026-06-01T00:00:00.000+08:00", "2026-06-01T00:00:00.000", "2026-06-01T00:00:00.000ZZ"],
)
def test_a_time_in_another_form_is_no_silent_guess(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time in UTC with milliseconds"):
        milliseconds(["2026-06-01T00:00:00.000Z", text])


def test_a_storm_of_one_second_is_written_in_the_order_of_the_log(place: Place) -> None:
    """A thousand changes of fifty incidents, cut into batches anywhere, end as the last change of each."""
    rng = random.Random(7)
    changes = [rows.incident(rng.randrange(50), version=number) for number in range(1, 1001)]
    sink, model = prepared(place, max_rows=100), MemorySink()
    model.write([], changes, [])
    while changes:
        size = rng.randrange(1, 90)
        sink.write([], changes[:size], [])
        changes = changes[size:]
    sink.flush()
    assert sink.incidents() == model.incidents
