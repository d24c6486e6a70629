"""The HTTP front behaves as a server does, for what clickhouse-connect asks and for what goes wrong."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import clickhouse_connect
import pytest
import sink_rows as rows
from clickhouse_connect.driver.exceptions import DatabaseError

from sinks.clickhouse import ClickHouseSink
from sinks.clickhouse_front import FrontProcess
from sinks.errors import SinkRefused, SinkUnavailable


@pytest.fixture
def connect(shared_front: FrontProcess) -> Iterator[Any]:
    clients = []

    def connect(**options: Any) -> Any:
        client = clickhouse_connect.get_client(
            host="127.0.0.1", port=shared_front.port, autogenerate_session_id=False, dedicated_pool=True, **options
        )
        clients.append(client)
        return client

    yield connect
    for client in clients:
        client.close()


def raw(front: FrontProcess, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes, Any]:
    with closing(http.client.HTTPConnection("127.0.0.1", front.port, timeout=60)) as connection:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers


@pytest.mark.parametrize("compress", ["lz4", "zstd", "gzip", False])
def test_inserts_arrive_with_every_compression(connect: Any, compress: str | bool) -> None:
    client = connect(compress=compress)
    client.command("CREATE OR REPLACE TABLE numbers (n UInt64, s String) ENGINE = MergeTree ORDER BY n")
    column = list(range(100_000))
    client.insert("numbers", [column, [f"text {n}" for n in column]], column_oriented=True)
    assert client.query("SELECT count(), sum(n), max(s) FROM numbers").result_rows == [
        (100_000, sum(column), "text 99999")
    ]
    assert client.query("SELECT n FROM numbers ORDER BY n LIMIT 3").result_rows == [(0,), (1,), (2,)]


def test_settings_and_databases_of_one_client_do_not_touch_another(connect: Any) -> None:
    one, other = connect(settings={"max_threads": 1}), connect()
    one.command("CREATE DATABASE IF NOT EXISTS aside")
    one.database = "aside"
    asked = "SELECT currentDatabase(), getSetting('max_threads') = 1"
    assert one.query(asked).result_rows == [("aside", True)]
    assert other.query(asked).result_rows == [("default", False)]


def test_errors_have_the_servers_number_and_name(connect: Any) -> None:
    client = connect()
    for statement, code, name in (
        ("SELECT * FROM nowhere", 60, "UNKNOWN_TABLE"),
        ("SELEC 1", 62, "SYNTAX_ERROR"),
        ("SELECT nothing", 47, "UNKNOWN_IDENTIFIER"),
    ):
        with pytest.raises(DatabaseError) as caught:
            client.command(statement)
        assert (caught.value.code, caught.value.name) == (code, name)


def test_parameters_are_bound_by_the_engine(connect: Any) -> None:
    nasty = 'it\'s \\ "quoted"; -- \t\n数'
    assert connect().query("SELECT {x:String}", {"x": nasty}).result_rows == [(nasty,)]


def test_a_get_cannot_write(shared_front: FrontProcess) -> None:
    status, body, headers = raw(shared_front, "GET", "/?query=CREATE+DATABASE+written")
    assert status == 500
    assert headers["X-ClickHouse-Exception-Code"] == "164", body
    assert raw(shared_front, "GET", "/?query=SELECT+1")[:2] == (200, b"1\n")


def test_ping_answers_and_strange_paths_do_not(shared_front: FrontProcess) -> None:
    assert raw(shared_front, "GET", "/ping")[:2] == (200, b"Ok.\n")
    assert raw(shared_front, "GET", "/nothing")[0] == 404
    assert raw(shared_front, "POST", "/_fault?mode=strange")[0] == 400


def test_a_broken_request_harms_nobody_else(shared_front: FrontProcess) -> None:
    for headers in (
        {"Content-Encoding": "lz4"},
        {"Content-Encoding": "zstd"},
        {"Content-Encoding": "gzip"},
        {"Transfer-Encoding": "chunked"},
    ):
        assert raw(shared_front, "POST", "/", b"this is no such body\r\n\r\n", **headers)[0] == 400
    assert raw(shared_front, "POST", "/", **{"Content-Length": str(1 << 40)})[0] == 413
    assert raw(shared_front, "POST", "/", b"x", **{"Content-Encoding": "rot13"})[0] == 500
    assert raw(shared_front, "GET", "/ping")[0] == 200


def test_faults_last_as_many_requests_as_asked(shared_front: FrontProcess) -> None:
    met = shared_front.fault_state()["met"].get("unavailable", 0)
    assert shared_front.fault("unavailable", count=2)["left"] == 2
    assert [raw(shared_front, "GET", "/ping")[0] for _ in range(3)] == [503, 503, 200]
    state = shared_front.fault_state()
    assert (state["mode"], state["met"]["unavailable"]) == ("none", met + 2)


def test_a_slow_server_is_unavailable_after_the_timeout(shared_front: FrontProcess) -> None:
    shared_front.fault("slow", count=1, seconds=60)
    with pytest.raises(SinkUnavailable, match="no answer in time"):
        ClickHouseSink(f"{shared_front.dsn}?timeout_s=1").prepare()
    assert shared_front.fault_state()["mode"] == "none"
    sink = ClickHouseSink(shared_front.dsn)
    sink.prepare()
    assert sink.counts()["incidents"] == 0
    sink.close()


def test_several_processes_and_threads_write_at_once(tmp_path: Path) -> None:
    """What the front is for: workers of one demo, each with its own sink, the embedded engine only once."""
    with FrontProcess(tmp_path) as front:
        sinks = [ClickHouseSink(front.dsn) for _ in range(4)]
        sinks[0].prepare()

        def work(number: int) -> None:
            for batch in range(5):
                many = [rows.assignment(number * 1000 + batch * 100 + n) for n in range(100)]
                sinks[number].write(many, [rows.incident(n, version=batch + 1) for n in range(20)], [])
                sinks[number].flush()

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sinks[0].counts() == {"incidents": 20, "assignments": 2000, "dead_letters": 0}
        assert {one.version for one in sinks[1].incidents()} == {5}
        for sink in sinks:
            sink.close()


def test_the_command_prints_one_line_and_checks_the_login(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("s3cret\n")
    command = [sys.executable, "-m", "sinks.clickhouse_front", "--path", str(tmp_path / "engine"), "--stop-at-eof"]
    login = ["--user", "writer", "--password-file", str(tmp_path / "password")]
    with subprocess.Popen([*command, *login], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        assert told["address"] == f"http://127.0.0.1:{told['port']}"
        address = f"127.0.0.1:{told['port']}/citybrain"
        right = ClickHouseSink(f"clickhouse://writer@{address}?password_file={tmp_path / 'password'}")
        right.prepare()
        right.close()
        for wrong in (f"clickhouse://writer:no@{address}", f"clickhouse://{address}"):
            with pytest.raises(SinkRefused, match="check user and password"):
                ClickHouseSink(wrong).prepare()
        process.communicate()  # closes its standard input, which ends it
        assert process.returncode == 0


def test_it_says_in_one_line_why_it_cannot_start(tmp_path: Path) -> None:
    with FrontProcess(tmp_path / "a") as front:
        with pytest.raises(SinkRefused, match=r"is open in process \d+") as caught:
            FrontProcess(tmp_path / "a")
        assert "\n" not in str(caught.value)
        with pytest.raises(
            SinkRefused, match=f"cannot listen on 127.0.0.1:{front.port}: .* give another --port"
        ) as caught:
            FrontProcess(tmp_path / "b", front.port)
        assert "\n" not in str(caught.value)
