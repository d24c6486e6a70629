"""Results as files: whole or visibly not, the same bytes for the same results."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import msgspec
import pytest
import sink_rows as rows
from hypothesis import given, settings
from hypothesis import strategies as st

from sinks.errors import SinkUnwritable
from sinks.files import FileSink
from sinks.incident_sink import IncidentSink, supersedes
from sinks.memory import MemorySink
from streams.messages import Assignment, DeadLetterRecord, Incident

# Each example writes and syncs real files.
some = settings(max_examples=20)

NAMES = ["assignments.jsonl", "dead-letters.jsonl", "incidents.jsonl", "summary.json"]


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_run_makes_four_files_and_nothing_else(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "new" / "out")
    sink.write([rows.assignment(2), rows.assignment(1)], [rows.incident(2)], [rows.dead_letter()])
    sink.write([], [rows.incident(1), rows.incident(2, version=2)], [])
    sink.close({"reports": 2, "incidents": 2})
    sink.close()
    files = files_in(tmp_path / "new" / "out")
    assert list(files) == NAMES
    assignments = msgspec.json.Decoder(Assignment).decode_lines(files["assignments.jsonl"])
    assert assignments == [rows.assignment(2), rows.assignment(1)], "in order of decision"
    incidents = msgspec.json.Decoder(Incident).decode_lines(files["incidents.jsonl"])
    assert incidents == [rows.incident(1), rows.incident(2, version=2)], "final state, sorted by id"
    assert msgspec.json.Decoder(DeadLetterRecord).decode_lines(files["dead-letters.jsonl"]) == [rows.dead_letter()]
    assert json.loads(files["summary.json"]) == {"reports": 2, "incidents": 2}
    assert all(content.endswith(b"\n") for content in files.values())


def test_a_run_without_results_makes_four_files_too(tmp_path: Path) -> None:
    FileSink(tmp_path).close()
    assert files_in(tmp_path) == dict(zip(NAMES, [b"", b"", b"", b"{}\n"], strict=True))


@some
@given(
    st.lists(rows.incidents, max_size=12),
    st.lists(rows.assignments(), max_size=12),
    st.lists(rows.dead_letters, max_size=12),
    st.lists(st.integers(0, 12), max_size=3),
)
def test_any_batches_give_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory,
    incidents: list[Incident],
    assignments: list[Assignment],
    dead_letters: list[DeadLetterRecord],
    cuts: list[int],
) -> None:
    """However the run is cut into batches, and in whatever order a dict was filled."""

    def run(cuts: list[int], *, shuffled: bool) -> dict[str, bytes]:
        sink = FileSink(tmp_path_factory.mktemp("out"))
        for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), 12], strict=True):
            some = msgspec.json.decode(msgspec.json.encode(incidents[start:stop]), type=list[Incident])
            if shuffled:
                for one in some:
                    one.sources = dict(random.Random(0).sample(sorted(one.sources.items()), len(one.sources)))
            sink.write(assignments[start:stop], some, dead_letters[start:stop])
        sink.close({"seconds": 1})
        return files_in(sink.folder)

    assert run([], shuffled=False) == run(cuts, shuffled=True)


@some
@given(st.lists(rows.incidents, max_size=12))
def test_files_and_memory_agree_on_the_state_that_stands(
    tmp_path_factory: pytest.TempPathFactory, incidents: list[Incident]
) -> None:
    folder = tmp_path_factory.mktemp("out")
    memory = MemorySink()
    sinks: list[IncidentSink] = [memory, FileSink(folder)]
    for sink in sinks:
        for one in incidents:
            sink.write([], [one], [])
        sink.close({})
    # The slow definition: of an incident's states in order, the last of those with the highest version and count.
    expected = [
        max(
            (i for i in incidents if i.incident_id == key),
            key=lambda i: (i.version, i.repeat_count, incidents.index(i)),
        )
        for key in sorted({i.incident_id for i in incidents})
    ]
    assert [(i.incident_id, i.version, i.repeat_count) for i in memory.incidents] == [
        (i.incident_id, i.version, i.repeat_count) for i in expected
    ]
    lines = msgspec.json.Decoder(Incident).decode_lines((folder / "incidents.jsonl").read_bytes())
    assert lines == memory.incidents


def test_among_equals_the_one_written_last_stands() -> None:
    old, new = rows.incident(), rows.incident(updated_at="2026-06-02T00:00:00.000Z")
    assert supersedes(new, old)
    assert supersedes(old, new)
    sink = MemorySink()
    sink.write([], [old, new], [])
    assert sink.incidents == [new]


# ------------------------------------------------------------------------------------------------- nothing half-done


def test_a_run_that_breaks_off_leaves_only_part_files(tmp_path: Path) -> None:
    def run() -> None:
        with FileSink(tmp_path) as sink:
            sink.write([rows.assignment()], [rows.incident()], [])
            raise RuntimeError("somewhere else")

    with pytest.raises(RuntimeError, match="somewhere else"):
        run()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["assignments.jsonl.part", "dead-letters.jsonl.part"]


def test_an_earlier_runs_results_stand_until_the_next_is_whole(tmp_path: Path) -> None:
    first = FileSink(tmp_path)
    first.write([rows.assignment(1)], [], [])
    first.close({"run": 1})
    earlier = files_in(tmp_path)
    second = FileSink(tmp_path)
    second.write([rows.assignment(2)] * 100_000, [], [])
    assert {name: content for name, content in files_in(tmp_path).items() if not name.endswith(".part")} == earlier
    second.close({"run": 2})
    files = files_in(tmp_path)
    assert list(files) == NAMES
    assert json.loads(files["summary.json"]) == {"run": 2}


def test_a_closed_sink_takes_nothing_more(tmp_path: Path) -> None:
    for sink in (FileSink(tmp_path), MemorySink()):
        sink.close({})
        with pytest.raises(ValueError, match="closed"):
            sink.write([rows.assignment()], [], [])


# ------------------------------------------------------------------------------------------------- where one cannot


def run_into(folder: Path, batches: int) -> None:
    with FileSink(folder) as sink:
        for _ in range(batches):
            sink.write([rows.assignment(n) for n in range(100)], [rows.incident()], [])
        sink.close({})


def one_line(error: pytest.ExceptionInfo[SinkUnwritable]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("full", ["assignments.jsonl", "incidents.jsonl", "summary.json"])
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_a_full_disk_is_told_with_the_path_and_leaves_no_whole_file(tmp_path: Path, full: str) -> None:
    """/dev/full stands for the disk: every write to it fails as one to a full disk does."""
    os.symlink("/dev/full", tmp_path / f"{full}.part")
    with pytest.raises(SinkUnwritable) as caught:
        run_into(tmp_path, batches=1)
    assert one_line(caught) == (
        f"cannot write {tmp_path}/{full}.part: the disk is full: free space there or choose another folder"
    )
    assert not [name for name in NAMES if (tmp_path / name).exists()]


def test_a_disk_that_fills_up_during_the_run_is_told_then(tmp_path: Path) -> None:
    os.symlink("/dev/full", tmp_path / "assignments.jsonl.part")
    with pytest.raises(SinkUnwritable, match="the disk is full"):
        run_into(tmp_path, batches=100)
    assert not [name for name in NAMES if (tmp_path / name).exists()]


def test_a_folder_that_cannot_be_is_told_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SinkUnwritable, match="a file of that name is in the way") as caught:
        FileSink(tmp_path / "file")
    assert str(tmp_path / "file") in one_line(caught)
    with pytest.raises(SinkUnwritable, match="part of the path is a file"):
        FileSink(tmp_path / "file" / "out")
    (tmp_path / "out" / "assignments.jsonl.part").mkdir(parents=True)
    with pytest.raises(SinkUnwritable, match=r"assignments\.jsonl\.part: a folder of that name is in the way"):
        FileSink(tmp_path / "out")
    (tmp_path / "taken" / "incidents.jsonl").mkdir(parents=True)
    with pytest.raises(SinkUnwritable, match=r"incidents\.jsonl: a folder of that name is in the way"):
        FileSink(tmp_path / "taken").close({})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_told_with_the_remedy(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(SinkUnwritable, match="not permitted: choose a folder you may write to"):
        FileSink(tmp_path / "out")
    tmp_path.chmod(0o700)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system nobody can write to")
def test_a_place_nobody_can_write_to_is_told() -> None:
    with pytest.raises(SinkUnwritable, match="cannot write /proc/out: "):
        FileSink("/proc/out")
