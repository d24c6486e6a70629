"""`citybrain explain`: a folder, ClickHouse and a worker give one answer, and a stranger understands it."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec
import pytest
from click.testing import CliRunner, Result
from hypothesis import example, given
from hypothesis import strategies as st

from agents.commands import main
from sinks.clickhouse import ClickHouseSink
from streams.explanation import (
    Explained,
    UnreadableLine,
    distance_text,
    duration_text,
    explain_from_lines,
    explain_from_sink,
    in_words,
    likelier_text,
    points_text,
    reports_meant,
)
from streams.messages import Assignment, Incident, RunnerUp, Why
from streams.schemas import EXAMPLES

PACK = Path(__file__).resolve().parent.parent.parent / "packs" / "sample"
LON, LAT = 119.952302, 38.753786
"""A place in the sample city."""
A_METRE = 1 / 111_000
"""Northwards, in degrees."""
ODD_ID = "a/b?c=[red]\x1b[2J\u202e&%41"
"""An id of a stranger: a path, a query, markup, a terminal's control sequence, a change of direction."""


def patrol(at: str, report_id: str, north_m: float, **more: object) -> dict[str, Any]:
    message = {
        "id": report_id,
        "time": f"2026-06-01T{at}:00Z",
        "worker_id": "w-1",
        "category": "暴露垃圾",
        "lon": LON,
        "lat": LAT + north_m * A_METRE,
        "crs": "wgs84",
        "accuracy_m": 10,
        **more,
    }
    return {"topic": "patrol.reports", "timestamp": 1780272000000 + minutes(at) * 60_000, "value": message}


def hotline(at: str, report_id: str, **more: object) -> dict[str, Any]:
    message = {"id": report_id, "time": f"2026-06-01T{at}:00Z", "category": "垃圾未清运", **more}
    return {"topic": "hotline.tickets", "timestamp": 1780272000000 + minutes(at) * 60_000, "value": message}


def minutes(at: str) -> int:
    hours, _, rest = at.partition(":")
    return int(hours) * 60 + int(rest)


RECORDING = [
    patrol("08:00", "P-1", 0),
    hotline("08:05", "H-2", lon=LON, lat=LAT + 20 * A_METRE, crs="wgs84", accuracy_m=10),
    patrol("08:06", "P-3", 60),
    patrol("08:10", "P-4", 25),
    patrol("08:11", "P-1", 0),
    hotline("08:12", "H-5", category="政策咨询"),
    hotline("08:13", "H-6", category="路灯不亮"),
    patrol("12:00", "X-8", 0),
    hotline("12:01", "X-8", category="路灯不亮"),
    {**patrol("12:02", "P-7", 5, time="2026-06-01T09:00:00Z")},
    patrol("12:03", ODD_ID, 1),
]
IDS = ["P-1", "hotline:H-2", "X-8", "H-5", ODD_ID]


def citybrain(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="citybrain")


def pack_in(folder: Path, more: str = "") -> Path:
    """The sample city as nobody has weighed it yet: by radius and window alone, and what is added."""
    pack = shutil.copytree(PACK, folder / "pack")
    catalogue = (pack / "catalogue.toml").read_text(encoding="utf-8")
    catalogue = re.sub(r"\[match\]\n.*?(?=\n\[\[category\]\])", "", catalogue, flags=re.DOTALL)
    catalogue = re.sub(r"\[category\.match\]\nalike_km2 = [\d.]+\n", "", catalogue)
    catalogue = re.sub(r"accuracy_cap_m = \d+", "accuracy_cap_m = 30", catalogue)
    (pack / "catalogue.toml").write_text(catalogue + more, encoding="utf-8")
    return pack


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `citybrain replay` makes of a few lines written by hand."""
    out = tmp_path_factory.mktemp("replay")
    recording = out / "day.jsonl"
    recording.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in RECORDING), encoding="utf-8")
    result = citybrain("replay", recording, "--city", pack_in(out), "--out", out / "result", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["dead_letters"] == {}
    return out / "result"


@pytest.fixture(scope="module")
def incidents(folder: Path) -> list[Incident]:
    return msgspec.json.Decoder(Incident).decode_lines((folder / "incidents.jsonl").read_bytes())


@pytest.fixture(scope="module")
def of_report(folder: Path) -> dict[str, Assignment]:
    """The first answer to each report, by `source:report_id`."""
    answers: dict[str, Assignment] = {}
    for answer in msgspec.json.Decoder(Assignment).decode_lines((folder / "assignments.jsonl").read_bytes()):
        answers.setdefault(f"{answer.source}:{answer.report_id}", answer)
    return answers


@pytest.fixture(scope="module")
def chdb(folder: Path, tmp_path_factory: pytest.TempPathFactory, incidents: list[Incident]) -> str:
    dsn = f"chdb://{tmp_path_factory.mktemp('chdb')}"
    sink = ClickHouseSink(dsn)
    sink.prepare()
    assignments = msgspec.json.Decoder(Assignment).decode_lines((folder / "assignments.jsonl").read_bytes())
    sink.write(assignments, incidents, [])
    sink.close()
    return dsn


class Worker(BaseHTTPRequestHandler):
    """What a worker serves, from a replay's folder; and what else may listen there."""

    folder: Path

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        behaviour, _, asked = url.path.partition("/api/explain/")
        if behaviour == "/page":
            self.answer(200, b"<html>welcome</html>")
        elif behaviour == "/absent":
            self.answer(404, b"<html>not found</html>")
        elif behaviour == "/starting":
            self.answer(503, b"not ready")
        elif behaviour == "/waiting":
            self.answer(503, b'{"error": "clickhouse://db: ClickHouse is not available: connection refused"}')
        elif behaviour != "/silent":
            limit = 10_000 if behaviour == "/generous" else int(parse_qs(url.query)["limit"][0])
            paths = self.folder / "assignments.jsonl", self.folder / "incidents.jsonl"
            explained = explain_from_lines(unquote(asked), *(path.read_bytes().splitlines() for path in paths), limit)
            unknown = behaviour == "/strict" and not explained.known
            self.answer(404 if unknown else 200, msgspec.json.encode(explained))

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class names it
        del format, args


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    handler = type("WorkerOfThisFolder", (Worker,), {"folder": folder})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


# -------------------------------------------------------------------------------------------------- one answer


@pytest.mark.parametrize("asked", [*IDS, "incident"])
def test_a_folder_clickhouse_and_a_worker_give_one_answer(asked, folder, chdb, url, of_report):
    if asked == "incident":
        asked = of_report["patrol:P-1"].incident_id
    from_folder, *others = (citybrain("explain", asked, "--from", place, "--json") for place in (folder, chdb, url))
    assert from_folder.exit_code == 0, from_folder.output
    explained = msgspec.json.decode(from_folder.stdout, type=Explained)
    assert explained.assignments
    assert [other.stdout for other in others] == [from_folder.stdout] * 2


@pytest.mark.parametrize("place", ["folder", "chdb", "url"])
def test_an_unknown_id_is_one_line_and_exit_1(place, request):
    where = request.getfixturevalue(place)
    result = citybrain("explain", "nobody", "--from", where)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"Error: nothing is known of 'nobody' in {where}: neither an incident nor a report\n"


def test_a_worker_may_say_404_for_an_unknown_id(url):
    result = citybrain("explain", "nobody", "--from", f"{url}/strict")
    assert result.exit_code == 1
    assert "nothing is known of 'nobody'" in result.stderr


@pytest.mark.parametrize("place", ["folder", "chdb", "url"])
def test_the_limit_bounds_what_is_shown_and_says_so(place, request, of_report):
    incident = of_report["patrol:P-1"].incident_id
    where = request.getfixturevalue(place)
    all_of_it = msgspec.json.decode(citybrain("explain", incident, "--from", where, "--json").stdout, type=Explained)
    result = citybrain("explain", incident, "--from", where, "--limit", "2", "--json")
    cut = msgspec.json.decode(result.stdout, type=Explained)
    assert not all_of_it.truncated
    assert cut.truncated
    assert cut.assignments == all_of_it.assignments[:2]
    shown = citybrain("explain", incident, "--from", where, "--limit", "2").stdout
    assert shown.endswith("The earliest 2 of 7; see more with --limit\n")


def test_a_worker_that_sends_more_than_was_asked_for_is_cut(url, of_report):
    incident = of_report["patrol:P-1"].incident_id
    result = citybrain("explain", incident, "--from", f"{url}/generous", "--limit", "2", "--json")
    assert [len(json.loads(result.stdout)["assignments"]), json.loads(result.stdout)["truncated"]] == [2, True]


# ------------------------------------------------------------------------------------------------ what it says


def test_a_report_that_joined_tells_distance_gap_score_and_runner_up(folder, of_report):
    """25 m from the first heap and 35 m from the second, with 50 m allowed."""
    first, second = of_report["patrol:P-1"].incident_id, of_report["patrol:P-3"].incident_id
    assert first != second
    lines = citybrain("explain", "P-4", "--from", folder).stdout.splitlines()
    assert lines[0] == (
        f"patrol:P-4 joined incident {first}: 25 m from its place (50 m allowed), "
        "5 min from its latest report (1 day allowed)."
    )
    end = lines.index("")
    rows = dict(line.split(maxsplit=1) for line in lines[1:end])
    answer = of_report["patrol:P-4"]
    runner_up = answer.why.runner_up
    assert rows["reported"] == "2026-06-01 08:10:00 UTC, category 06010"
    assert rows["incident"].startswith("暴露垃圾, open, ")
    assert rows["distance"] == "25 m (50 m allowed)"
    assert rows["score"] == (
        f"{points_text(answer.score)} points; of what is near the best is joined, whatever its score"
    )
    assert rows["runner-up"] == f"{second}, 35 m, {points_text(runner_up.score)} points"
    assert runner_up.score < answer.score < 0
    assert rows["record"] == "patrol.reports:0:2:0"
    told = [(line[:60].strip(), *line[60:].split(maxsplit=1)) for line in lines[end + 2 :]]
    assert told == [
        (about, points_text(points), likelier_text(points))
        for about, points in (
            ("how well both places are known, and how rare such events are", answer.why.terms["nearness"]),
            ("how far apart they lie", answer.why.terms["distance"]),
            ("another incident is nearly as likely", answer.why.terms["rival"]),
            ("together", answer.score),
        )
    ]
    assert answer.score == sum(answer.why.terms.values())


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("P-3", "opened incident {}: no incident of its kind was near enough in place and time (its own category"),
        ("H-5", "is no event: its category opens no incident."),
        ("H-6", "opened incident {}: it has no position, so nothing can be near it and a person must place it."),
        ("P-7", "came late, 3 h 2 min behind the newest then read; joined incident {}: 5 m from"),
    ],
)
def test_the_first_line_says_what_became_of_a_report(asked, says, folder, of_report):
    incident = next(answer.incident_id for answer in of_report.values() if answer.report_id == asked)
    assert says.format(incident) in citybrain("explain", asked, "--from", folder).stdout.splitlines()[0]


def test_a_repeat_stands_beside_the_report_it_repeats(folder, of_report):
    told = citybrain("explain", "P-1", "--from", folder).stdout
    incident = of_report["patrol:P-1"].incident_id
    assert f"patrol:P-1 opened incident {incident}: " in told
    assert f"patrol:P-1 repeats, under the same id, a report of incident {incident}.\n" in told


def test_two_sources_with_one_id_are_both_told_and_a_source_chooses(folder):
    both = citybrain("explain", "X-8", "--from", folder).stdout
    assert "patrol:X-8 joined" in both
    assert "hotline:X-8 opened" in both
    assert "hotline:X-8" not in citybrain("explain", "patrol:X-8", "--from", folder).stdout


def test_an_incident_lists_its_reports_in_order(folder, of_report):
    incident = of_report["patrol:P-1"].incident_id
    told = citybrain("explain", incident, "--from", folder).stdout
    assert told.startswith(f"incident {incident} is open.\n")
    head, _, table = told.partition("\n\n")
    assert "6 reports (hotline 1, patrol 5), 1 repeat" in head

    def score(report: str) -> str:
        return points_text(of_report[report].score)

    assert [(line.split()[3], " ".join(line.split()[4:])) for line in table.splitlines()[1:]] == [
        ("patrol:P-1", "founded it"),
        ("hotline:H-2", f"joined 20 m 5 min {score('hotline:H-2')}"),
        ("patrol:P-4", f"joined 25 m 5 min {score('patrol:P-4')}"),
        ("patrol:P-1", "same id again"),
        ("patrol:P-7", f"came late, joined 5 m 3 h {score('patrol:P-7')}"),
        ("patrol:X-8", f"joined 0 m 3 h 50 min {score('patrol:X-8')}"),
        (r"patrol:a/b?c=[red]\x1b[2J\u202e&%41", f"joined 1 m 3 min {score('patrol:' + ODD_ID)}"),
    ]


def test_what_strangers_write_moves_no_cursor(folder):
    told = citybrain("explain", ODD_ID, "--from", folder)
    assert told.exit_code == 0
    assert not {"\x1b", "\u202e"} & set(told.stdout)
    assert "[red]" in told.stdout


# ----------------------------------------------------------------------------------------------- second thoughts


@pytest.fixture(scope="module")
def corrected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A caller may mean the worker's heap, 20 m off; then another worker files one where the caller stood."""
    out = tmp_path_factory.mktemp("corrected")
    pack = pack_in(
        out,
        "\n[match]\nprior = -60\nspread_m = 12\nalike_km2 = 40\nsame_place = 70\nrethink = 20\nrethink_s = 3600\n"
        "[match.pairs]\npatrol-patrol = -150\n",
    )
    recording = [
        patrol("08:00", "A", 0, accuracy_m=0),
        hotline("08:05", "B", lon=LON, lat=LAT + 20 * A_METRE, crs="wgs84", accuracy_m=0),
        patrol("08:06", "C", 21, accuracy_m=0, worker_id="w-2"),
    ]
    lines = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in recording)
    (out / "day.jsonl").write_text(lines, encoding="utf-8")
    result = citybrain("replay", out / "day.jsonl", "--city", pack, "--out", out / "result", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["corrections"] == 1
    assert json.loads(result.stdout)["reports"] == 3
    return out / "result"


@pytest.fixture(scope="module")
def answers(corrected: Path) -> list[Assignment]:
    return msgspec.json.Decoder(Assignment).decode_lines((corrected / "assignments.jsonl").read_bytes())


def test_a_second_thought_stands_below_the_first_answer(corrected, answers):
    first, caller, second, again = answers
    told = citybrain("explain", "B", "--from", corrected).stdout
    before, _, after = told.partition("\n\nhotline:B went to")
    assert before.startswith(f"hotline:B joined incident {first.incident_id}: 20 m from its place")
    assert "hotline.tickets:0:0:0, taken back later, see below" in before
    assert after.startswith(f" incident {second.incident_id} after all, which was founded later: the very spot, 1 m")
    assert f"it suits it better than incident {first.incident_id}, which it had joined." in after.splitlines()[0]
    assert f"had joined    {first.incident_id}, +{caller.score} points" in after
    assert "hotline.tickets:0:0:0, correction 1" in after
    assert "it is at the very spot                                             +70    5 times likelier\n" in after
    assert again.incident_id == second.incident_id


def test_an_incident_says_who_left_it_and_who_came_over(corrected, answers, tmp_path_factory):
    first, _, second, _ = answers
    dsn = f"chdb://{tmp_path_factory.mktemp('corrected-db')}"
    sink = ClickHouseSink(dsn)
    sink.prepare()
    incidents = msgspec.json.Decoder(Incident).decode_lines((corrected / "incidents.jsonl").read_bytes())
    sink.write(answers, incidents, [])
    sink.close()
    for place in (corrected, dsn):
        became = []
        for incident in (first, second):
            told = citybrain("explain", incident.incident_id, "--from", place).stdout
            rows = told.partition("\n\n")[2].splitlines()[1:]
            became.append([(line.split()[3], " ".join(line.split()[4:7])) for line in rows])
        assert became == [
            [("patrol:A", "founded it"), ("hotline:B", "joined 20 m"), ("hotline:B", "left for another")],
            [("hotline:B", "came over to"), ("patrol:C", "founded it")],
        ], place


def test_a_report_that_founded_although_one_was_near_says_how_unlikely_that_was(corrected, answers):
    first, _, second, _ = answers
    told = citybrain("explain", "C", "--from", corrected).stdout.splitlines()[0]
    points = second.why.runner_up.score
    assert told == (
        f"patrol:C opened incident {second.incident_id}: the best one near, incident {first.incident_id}, is not "
        f"likely enough to be the same (−{-points} points, and 0 are needed)."
    )


# --------------------------------------------------------------------------------------------- where nothing is


def one_line(result: Result, exit_code: int = 1) -> str:
    assert result.exit_code == exit_code
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len([line for line in lines if line.startswith("Error: ")]) == 1
    assert exit_code == 2 or len(lines) == 1
    return lines[-1]


def test_no_folder_no_replay_and_an_unfinished_one_are_named(tmp_path):
    assert f"there is no folder {tmp_path / 'x'}" in one_line(citybrain("explain", "1", "--from", tmp_path / "x"))
    said = one_line(citybrain("explain", "1", "--from", tmp_path))
    assert said == (
        f"Error: there is no assignments.jsonl in {tmp_path}: it is not the --out folder of a `citybrain replay`"
    )
    (tmp_path / "assignments.jsonl.part").write_bytes(b"")
    assert "its replay has not finished" in one_line(citybrain("explain", "1", "--from", tmp_path))


@pytest.mark.parametrize("command", [("explain", "1"), ("status",)])
def test_the_folder_of_an_embedded_clickhouse_is_told_by_its_dsn(tmp_path, command):
    folder = tmp_path / "city 1"
    (folder / "metadata").mkdir(parents=True)  # as the engine makes it
    said = one_line(citybrain(*command, "--from", folder))
    assert said == (
        f"Error: {folder} is the folder of an embedded ClickHouse: use --from chdb://{tmp_path.resolve()}/city%201"
    )


def test_a_line_that_is_no_assignment_is_named_by_file_and_line(tmp_path):
    (tmp_path / "assignments.jsonl").write_bytes(b'{}\n{"report_id": "P-1"\n')
    (tmp_path / "incidents.jsonl").write_bytes(b"")
    said = one_line(citybrain("explain", "P-1", "--from", tmp_path))
    assert said.startswith(f"Error: {tmp_path / 'assignments.jsonl'}:2: ")


def test_a_chdb_folder_where_nothing_is_stays_as_it_was(tmp_path):
    for path in (tmp_path, tmp_path / "new"):
        assert f"no embedded ClickHouse in {path}" in one_line(citybrain("explain", "1", "--from", f"chdb://{path}"))
    assert list(tmp_path.iterdir()) == []


def test_a_clickhouse_that_is_away_is_one_line_without_its_password():
    said = one_line(citybrain("explain", "1", "--from", "clickhouse://me:secret@127.0.0.1:1/citybrain"))
    assert "clickhouse://me:***@127.0.0.1:1/citybrain: ClickHouse is not available" in said
    assert "secret" not in said


def test_a_worker_that_is_away_is_one_line():
    said = one_line(citybrain("explain", "1", "--from", "http://127.0.0.1:1"))
    assert said == "Error: cannot reach a worker at http://127.0.0.1:1: connection refused; is it running there?"


@pytest.mark.parametrize(
    ("behaviour", "says"),
    [
        ("silent", "cannot reach a worker at"),
        ("page", "does not answer as a worker does"),
        ("absent", "answers 404 Not Found: is it the address of `citybrain worker`?"),
        ("starting", "answers 503 Service Unavailable: it cannot answer now"),
        ("waiting", "answers 503 Service Unavailable: clickhouse://db: ClickHouse is not available: connection"),
    ],
)
def test_whatever_else_listens_there_is_one_line(behaviour, says, url):
    assert says in one_line(citybrain("explain", "1", "--from", f"{url}/{behaviour}"))


@pytest.mark.parametrize(
    "place", ["ftp://host/x", "http://", "http://me:secret@host", "clickhouse://", "chdb://relative", "http://host:x"]
)
def test_an_address_that_is_none_is_wrong_usage(place):
    said = one_line(citybrain("explain", "1", "--from", place), exit_code=2)
    assert "--from" in said
    assert "secret" not in said


# ----------------------------------------------------------------------------------------- the same, in the small


names_of_others = ("a", "b", "c")


def an_assignment(time: int, origin: int, revision: int, source: str, report: str, to: str | None) -> Assignment:
    return Assignment(
        origin=f"{source}:0:{origin}:0",
        revision=revision,
        source=source,
        report_id=report,
        event_time=f"2026-06-01T00:00:{time:02}.000Z",
        incident_id=to,
        outcome="joined",
        score=None,
        distance_m=None,
        gap_s=None,
        category="1",
        why=Why(rule="second_thoughts", runner_up=RunnerUp(names_of_others[time % 3], 1, None))
        if revision
        else Why(rule="best_open"),
    )


def an_incident(incident_id: str) -> Incident:
    return msgspec.convert({**EXAMPLES["incident"][0], "incident_id": incident_id}, Incident)


class SlowAnswers:
    """The plain definition of what can be asked."""

    def __init__(self, assignments: list[Assignment], incidents: list[Incident]) -> None:
        self.rows = sorted(assignments, key=lambda row: (row.event_time, row.origin, row.revision))
        self.incident_of_id = {incident.incident_id: incident for incident in incidents}

    def incident(self, incident_id: str) -> Incident | None:
        return self.incident_of_id.get(incident_id)

    def assignments_of(self, incident_id: str, limit: int = 1000) -> list[Assignment]:
        return [
            row
            for row in self.rows
            if row.incident_id == incident_id
            or (row.revision and row.why.runner_up is not None and row.why.runner_up.incident_id == incident_id)
        ][:limit]

    def assignment_of_report(self, source: str | None, report_id: str, limit: int = 1000) -> list[Assignment]:
        return [row for row in self.rows if row.report_id == report_id and source in (None, row.source)][:limit]


names = st.sampled_from(["a", "b", "iot:a", "patrol:a", "é", '"'])


@given(
    st.lists(
        st.builds(
            an_assignment,
            st.integers(0, 3),
            st.integers(0, 5),
            st.integers(0, 1),
            st.sampled_from(["iot", "patrol"]),
            names,
            st.none() | names,
        ),
        max_size=40,
        unique_by=lambda row: (row.origin, row.revision),
    ),
    st.sets(names),
    names,
    st.integers(1, 4),
)
@example([an_assignment(0, 0, 0, "iot", "a", "b")], {"b"}, "iot:a", 1)
def test_reading_lines_finds_what_asking_a_sink_finds(assignments, incident_ids, asked, limit):
    incidents = [an_incident(incident_id) for incident_id in sorted(incident_ids)]
    lines = [msgspec.json.encode(row) for row in assignments]
    found = explain_from_lines(asked, lines, [msgspec.json.encode(row) for row in incidents], limit)
    assert found == explain_from_sink(SlowAnswers(assignments, incidents), asked, limit)
    assert len(found.assignments) <= limit


@pytest.mark.parametrize("limit", [0, -1, 10_001])
def test_a_limit_out_of_range_is_refused(limit):
    with pytest.raises(ValueError, match="must be 1 to 10000"):
        explain_from_sink(SlowAnswers([], []), "a", limit)


def test_a_broken_line_about_something_else_does_not_matter():
    lines = [b'{"broken": ', msgspec.json.encode(an_assignment(0, 0, 0, "iot", "a", None))]
    assert len(explain_from_lines("a", [lines[1]], [], 5).assignments) == 1
    assert not explain_from_lines("z", lines, [], 5).known
    with pytest.raises(UnreadableLine, match="line 1: "):
        explain_from_lines("broken", lines, [], 5)


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("T-7", [(None, "T-7")]),
        ("iot:T-7", [("iot", "T-7"), (None, "iot:T-7")]),
        ("gate:T-7", [(None, "gate:T-7")]),
        ("iot:", [(None, "iot:")]),
        ("iot:video:1", [("iot", "video:1"), (None, "iot:video:1")]),
    ],
)
def test_a_source_may_stand_before_a_reports_id(asked, meant):
    assert reports_meant(asked) == meant


@pytest.mark.parametrize(
    ("duration_s", "text"),
    [
        (0, "0 s"),
        (12.5, "12.5 s"),
        (60, "1 min"),
        (75.9, "1 min 15 s"),
        (3600, "1 h"),
        (3659, "1 h"),
        (86_400, "1 day"),
        (93_784, "1 day 2 h"),
        (2_592_000, "30 days"),
    ],
)
def test_durations_are_told_by_their_two_largest_units(duration_s, text):
    assert duration_text(duration_s) == text


def test_distances_are_told_to_a_decimetre():
    assert [distance_text(metres) for metres in (0, 23.1, 80.0, 12345.67)] == ["0 m", "23.1 m", "80 m", "12,345.7 m"]


@pytest.mark.parametrize(
    ("outcome", "why", "says"),
    [
        ("reopened", Why(rule="reopened"), "reopened incident i: 5 m from its place, 1 min from its"),
        ("late", Why(rule="no_position", late_s=700.0, found=False), "came late, 11 min 40 s behind the newest then"),
        ("merged", Why(rule="by_hand"), "merged, incident i (rule by_hand)"),
        ("opened", Why(rule="by_hand", runner_up=RunnerUp("j", 1, 2.0)), "opened incident i: by the rule by_hand"),
    ],
)
def test_outcomes_that_come_later_are_told_too(outcome, why, says):
    assignment = an_assignment(0, 0, 0, "iot", "a", "i")
    assignment.outcome, assignment.why, assignment.distance_m, assignment.gap_s = outcome, why, 5.0, 60.0
    assert in_words(assignment).startswith(says)
