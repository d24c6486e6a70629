"""ClickHouse's HTTP interface before an embedded engine: a server for tests, demo and several local workers.

The embedded engine locks its folder to one process.  This front opens it once and answers what clickhouse-connect
sends, so that any number of processes use ``clickhouse://127.0.0.1:PORT/…`` as they would a server::

    python -m sinks.clickhouse_front --path build/chdb --port 0

prints one JSON line with its ``address`` and ``dsn`` and serves until it is terminated.  Loopback only, one user, no
TLS, no sessions (every request stands alone), no external tables, answers uncompressed.

Faults are switched on over the wire: ``POST /_fault?mode=MODE&count=N`` makes the next N requests (all, without
``count``) meet one of

    unavailable    HTTP 503, nothing done
    refuse_login   ClickHouse's error 516
    fail_inserts   inserts answer error 252, TOO_MANY_PARTS, and do nothing
    lose_answers   inserts are done, and the connection breaks before the answer
    slow           every request waits `seconds` (default 1) first
    none           back to normal

``GET /_fault`` tells the mode and how many requests each mode has met; ``/ping`` is never disturbed but by
`unavailable`.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import http.client
import io
import json
import re
import signal
import subprocess
import sys
import tempfile
import threading
import zlib
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import chdb
import lz4.frame  # type: ignore[import-untyped]
import zstandard

from sinks.chdb_folder import check_folder
from sinks.clickhouse_dsn import DEFAULT_DATABASE
from sinks.errors import SinkRefused

FAULTS = ("none", "unavailable", "refuse_login", "fail_inserts", "lose_answers", "slow")

MAX_BODY_BYTES = 256 << 20
"""Of a request, before and after decompression; a larger one is answered 413."""
MAX_CONNECTIONS = 32
"""Served at once, one thread each; further ones wait in the listen queue."""
IDLE_TIMEOUT_S = 60.0
"""After which a silent connection gives its place free."""

# What the HTTP interface itself consumes; every other parameter is a setting of the engine.
_NOT_SETTINGS = frozenset(
    {
        "query",
        "database",
        "default_format",
        "session_id",
        "session_timeout",
        "session_check",
        "query_id",
        "quota_key",
        "role",
        "user",
        "password",
        "wait_end_of_query",
        "buffer_size",
        "compress",
        "decompress",
        "client_protocol_version",
        "stacktrace",
        "enable_http_compression",
        "send_progress_in_http_headers",
        "http_headers_progress_interval_ms",
        "cancel_http_readonly_queries_on_client_close",
    }
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_INSERT_WITH_DATA = re.compile(rb"\s*(INSERT\s+INTO\s[^;]*?)\s+FORMAT\s+(\w+)[ \t]*(?:\r?\n|\Z)", re.IGNORECASE)
_INSERT = re.compile(rb"\s*INSERT\s", re.IGNORECASE)
_FORMAT_AT_END = re.compile(rb"\bFORMAT\s+(\w+)\s*;?\s*\Z", re.IGNORECASE)
_ERROR_CODE = re.compile(r"Code: (\d+)")


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


@dataclass(frozen=True)
class _Answer:
    body: bytes = b""
    format: str = ""
    read_rows: int = 0
    written_rows: int = 0


class _ServerError(Exception):
    """An error as ClickHouse words it; the text begins with ``Code: N.``"""


class _TooLargeError(Exception):
    """A body beyond MAX_BODY_BYTES."""


def _decompressed(body: bytes, encoding: str) -> bytes:
    if encoding in ("", "identity"):
        return body
    if encoding == "lz4":
        out = bytearray()
        while body:
            frame = lz4.frame.LZ4FrameDecompressor()
            out += frame.decompress(body, max_length=MAX_BODY_BYTES + 1 - len(out))
            if not frame.eof:
                raise _TooLargeError
            body = frame.unused_data or b""
        return bytes(out)
    if encoding == "zstd":
        reader = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(body), read_across_frames=True)
        plain = reader.read(MAX_BODY_BYTES + 1)
    elif encoding == "gzip":
        plain = gzip.GzipFile(fileobj=io.BytesIO(body)).read(MAX_BODY_BYTES + 1)
    elif encoding == "deflate":
        plain = zlib.decompressobj().decompress(body, MAX_BODY_BYTES + 1)
    else:
        raise _ServerError(f"Code: 471. DB::Exception: Unknown content encoding {encoding}. (INVALID_SETTING_VALUE)")
    if len(plain) > MAX_BODY_BYTES:
        raise _TooLargeError
    return plain


class _Engine:
    """One embedded engine; every request gets a handle of its own, so databases and settings do not mix."""

    def __init__(self, path: Path) -> None:
        self._path = str(path.resolve())
        check_folder(self._path)
        try:
            # Kept open: the engine lives as long as its first handle.
            self._keeper = self._connect()
        except RuntimeError as error:
            raise SinkRefused(f"{self._path}: the engine does not start there: give an empty folder") from error

    def _connect(self) -> Any:
        return chdb.connect(self._path)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        self._keeper.close()

    def answer(self, text: bytes, parameters: dict[str, str], *, read_only: bool) -> _Answer:
        """Run one request.  `text` is the statement, for an insert followed by a line end and its data."""
        settings = {name: value for name, value in parameters.items() if self._is_setting(name)}
        if read_only:
            settings["readonly"] = "1"  # last: nothing can be set after it
        bound = {name[6:]: value for name, value in parameters.items() if name.startswith("param_")}
        try:
            with closing(self._connect()) as handle:
                if database := parameters.get("database"):
                    handle.query(f"USE `{database.replace('`', '')}`")
                if settings:
                    handle.query("SET " + ", ".join(f"{name} = {_quoted(value)}" for name, value in settings.items()))
                return self._insert(handle, text) or self._query(handle, text, bound)
        except RuntimeError as error:
            message = str(error)
            raise _ServerError(message[max(message.find("Code: "), 0) :].strip()) from error

    @staticmethod
    def _is_setting(name: str) -> bool:
        if name in _NOT_SETTINGS or name.startswith("param_"):
            return False
        if _NAME.fullmatch(name) is None:
            raise _ServerError(f"Code: 115. DB::Exception: Unknown setting {name!r}. (UNKNOWN_SETTING)")
        return True

    @staticmethod
    def _insert(handle: Any, text: bytes) -> _Answer | None:
        statement = _INSERT_WITH_DATA.match(text)
        if statement is None:
            return None
        with handle.send_insert(statement[1].decode(), statement[2].decode()) as insert:
            insert.append(text[statement.end() :])
            return _Answer(written_rows=insert.finish().rows_written)

    @staticmethod
    def _query(handle: Any, text: bytes, bound: dict[str, str]) -> _Answer:
        explicit = _FORMAT_AT_END.search(text)
        if explicit:
            result = handle.query(text.decode(), "TabSeparated", params=bound)
            return _Answer(result.bytes() or b"", explicit[1].decode(), result.rows_read())
        # A statement that has a result names its columns even when there is no row; one that has none says nothing.
        result = handle.query(text.decode(), "TabSeparatedWithNames", params=bound)
        body: bytes = result.bytes() or b""
        if not body:
            return _Answer()
        return _Answer(body[body.find(b"\n") + 1 :], "TabSeparated", result.rows_read())


class _Faults:
    """Which fault is on, for how many more requests, and what it has met."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._mode = "none"
        self._left: int | None = None
        self.seconds = 1.0
        self.met: Counter[str] = Counter()

    def set(self, mode: str, count: int | None, seconds: float) -> None:
        with self._lock:
            self._mode, self._left, self.seconds = mode, count, seconds

    def meets(self, *modes: str) -> bool:
        """Whether this request meets one of the modes; counts it if so."""
        with self._lock:
            if self._mode not in modes or self._left == 0:
                return False
            if self._left is not None:
                self._left -= 1
            self.met[self._mode] += 1
            return True

    def state(self) -> dict[str, object]:
        with self._lock:
            on = self._mode if self._left != 0 else "none"
            return {"mode": on, "left": self._left, "met": dict(self.met)}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE_TIMEOUT_S
    server: ClickHouseFront
    # Headers and body leave in two writes; without this the second waits for the first one's acknowledgement, 40 ms.
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._serve(read_only=True)

    def do_POST(self) -> None:
        self._serve(read_only=False)

    def log_message(self, *_: object) -> None:
        """Stay silent: this front's standard error belongs to whoever started it."""

    def _serve(self, *, read_only: bool) -> None:
        url = urlsplit(self.path)
        parameters = dict(parse_qsl(url.query, keep_blank_values=True))
        try:
            body = self._body()
        except _TooLargeError:
            self.close_connection = True
            self._send(413, b"request too large\n")
            return
        except (OSError, EOFError, RuntimeError, ValueError, zlib.error, zstandard.ZstdError) as error:
            # The rest of a body that could not be read would be taken for the next request.
            self.close_connection = True
            self._send(400, f"cannot read the request: {error}\n".encode())
            return
        except _ServerError as error:
            self._send_error(error)
            return
        if url.path == "/_fault":
            self._fault(parameters, change=not read_only)
        elif self.server.faults.meets("unavailable"):
            self._send(503, b"switched off by /_fault\n")
        elif url.path == "/ping":
            self._send(200, b"Ok.\n")
        elif url.path == "/":
            self._run(body, parameters, read_only=read_only)
        else:
            self._send(404, b"There is no handle " + url.path.encode() + b"\n")

    def _run(self, body: bytes, parameters: dict[str, str], *, read_only: bool) -> None:
        faults = self.server.faults
        if faults.meets("slow") and self.server.stopping.wait(faults.seconds):
            self.close_connection = True  # the engine is about to go, and asking it would open it anew
            return
        query = parameters.get("query", "").encode()
        text = query + b"\n" + body if query and body else query or body
        is_insert = _INSERT.match(text) is not None
        try:
            self._authenticate(parameters, refuse=faults.meets("refuse_login"))
            if is_insert and faults.meets("fail_inserts"):
                raise _ServerError("Code: 252. DB::Exception: Too many parts, switched on by /_fault. (TOO_MANY_PARTS)")
            answer = self.server.engine.answer(text, parameters, read_only=read_only)
        except _ServerError as error:
            self._send_error(error)
            return
        if is_insert and faults.meets("lose_answers"):
            self.close_connection = True
            return
        summary = {"read_rows": str(answer.read_rows), "written_rows": str(answer.written_rows)}
        headers = {"X-ClickHouse-Summary": json.dumps(summary), "X-ClickHouse-Timezone": self.server.timezone}
        if answer.format:
            headers["X-ClickHouse-Format"] = answer.format
        if query_id := parameters.get("query_id"):
            headers["X-ClickHouse-Query-Id"] = query_id
        self._send(200, answer.body, headers)

    def _authenticate(self, parameters: dict[str, str], *, refuse: bool) -> None:
        user, password = parameters.get("user", "default"), parameters.get("password", "")
        kind, _, credentials = self.headers.get("Authorization", "").partition(" ")
        if kind == "Basic":
            user, _, password = base64.b64decode(credentials).decode().partition(":")
        user = self.headers.get("X-ClickHouse-User", user)
        password = self.headers.get("X-ClickHouse-Key", password)
        if refuse or (user, password) != (self.server.user, self.server.password):
            raise _ServerError(
                f"Code: 516. DB::Exception: {user}: Authentication failed: password is incorrect, or there is no user "
                "with such name. (AUTHENTICATION_FAILED)"
            )

    def _fault(self, parameters: dict[str, str], *, change: bool) -> None:
        if change:
            mode = parameters.get("mode", "")
            if mode not in FAULTS:
                self._send(400, f"mode is one of {', '.join(FAULTS)}\n".encode())
                return
            count = int(parameters["count"]) if "count" in parameters else None
            self.server.faults.set(mode, count, float(parameters.get("seconds", 1.0)))
        self._send(200, json.dumps(self.server.faults.state()).encode() + b"\n")

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            raw = self._chunks()
        else:
            size = int(self.headers.get("Content-Length", 0))
            if size > MAX_BODY_BYTES:
                raise _TooLargeError
            raw = self._exactly(size)
        return _decompressed(raw, self.headers.get("Content-Encoding", ""))

    def _chunks(self) -> bytes:
        body = bytearray()
        while size := int(self.rfile.readline(1000).split(b";")[0], 16):
            if len(body) + size > MAX_BODY_BYTES:
                raise _TooLargeError
            body += self._exactly(size)
            self.rfile.readline(1000)
        while self.rfile.readline(1000).strip():
            pass  # trailers
        return bytes(body)

    def _exactly(self, size: int) -> bytes:
        content = self.rfile.read(size)
        if len(content) < size:
            raise EOFError("the connection ended in the middle of the body")
        return content

    def _send_error(self, error: _ServerError) -> None:
        text = str(error)
        code = _ERROR_CODE.search(text)
        headers = {"X-ClickHouse-Exception-Code": code[1]} if code else {}
        self._send(403 if code and code[1] == "516" else 500, text.encode() + b"\n", headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "text/plain; charset=UTF-8")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)


class ClickHouseFront(ThreadingHTTPServer):
    """The front in this process; `serve_forever` runs it, `close` ends it and frees the folder.

    Raises
    ------
    SinkRefused
        The folder is open in another process, cannot be used, or the port is taken.
    """

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128
    faults: _Faults
    timezone: str

    def __init__(self, path: Path | str, port: int = 0, *, user: str = "default", password: str = "") -> None:
        """Open the engine and take the port; nothing is served yet."""
        self.user, self.password = user, password
        self.faults = _Faults()
        self.stopping = threading.Event()
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self.engine = _Engine(Path(path))
        try:
            answer = self.engine.answer(b"SELECT timezone()", {}, read_only=True)
            self.timezone = answer.body.decode().strip()
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            self.engine.close()
            raise SinkRefused(f"cannot listen on 127.0.0.1:{port}: {error.strerror}; give another --port") from error

    @property
    def address(self) -> str:
        """Where it listens, ``http://127.0.0.1:PORT``."""
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def dsn(self) -> str:
        """What a `ClickHouseSink` takes; without the password."""
        user = "" if self.user == "default" else f"{self.user}@"
        return f"clickhouse://{user}127.0.0.1:{self.server_port}/{DEFAULT_DATABASE}"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Wait for a free place, then serve the connection in a thread of its own."""
        self._places.acquire()
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._places.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection and give its place free."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say what went wrong in one line; a client that hangs up is no error."""
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError | TimeoutError):
            sys.stderr.write(f"clickhouse front: {type(error).__name__}: {error}\n")

    def close(self) -> None:
        """Stop listening and free the folder.  `serve_forever` must have ended."""
        self.stopping.set()
        self.server_close()
        self.engine.close()


class FrontProcess:
    """The front as a process of its own, for tests and demo; ends with the process that started it.

    Raises
    ------
    SinkRefused
        It did not start; the text is its own one line.
    """

    def __init__(self, path: Path | str, port: int = 0) -> None:
        """Start it and wait until it serves."""
        self.path = Path(path)
        # A file: nobody reads a pipe while it serves, and a full one would stop it.
        self._complaints = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - closed in _end
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sinks.clickhouse_front", "--path", str(path), "--port", str(port), "--stop-at-eof"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
            # Ctrl-C in a terminal is for whoever started this, who still has rows to flush.
            start_new_session=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            complaint = self._end()
            raise SinkRefused(complaint.strip() or "the ClickHouse front ended before it served")
        told = json.loads(line)
        self.address: str = told["address"]
        self.dsn: str = told["dsn"]
        self.port: int = told["port"]

    def fault(self, mode: str, **arguments: float) -> dict[str, Any]:
        """Switch a fault on (see the module); return the state of the faults."""
        return self._ask_faults("POST", f"/_fault?{urlencode({'mode': mode, **arguments})}")

    def fault_state(self) -> dict[str, Any]:
        """The mode that is on and how many requests each mode has met."""
        return self._ask_faults("GET", "/_fault")

    def _ask_faults(self, method: str, path: str) -> dict[str, Any]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            connection.request(method, path)
            state: dict[str, Any] = json.load(connection.getresponse())
            return state

    def stop(self) -> None:
        """End it in order and wait for its end."""
        self._process.terminate()
        self._end()

    def kill(self) -> None:
        """End it without warning, as a power cut would."""
        self._process.kill()
        self._end()

    def _end(self) -> str:
        """Wait for its end; return what it said on standard error."""
        self._process.communicate(timeout=30)
        with self._complaints as file:
            file.seek(0)
            return file.read()

    def __enter__(self) -> FrontProcess:
        """Return the running front."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it, unless it has ended."""
        if self._process.poll() is None:
            self.stop()


def main(arguments: list[str] | None = None) -> int:
    """Serve until terminated; 0 ended in order, 1 could not start, 2 wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m sinks.clickhouse_front", description=__doc__.split("\n")[0])
    parser.add_argument("--path", required=True, type=Path, help="the engine's folder, made where it is missing")
    parser.add_argument("--port", type=int, default=0, help="on 127.0.0.1; 0, the default, takes a free one")
    parser.add_argument("--user", default="default")
    parser.add_argument("--password-file", type=Path, help="file with the user's password; none by default")
    parser.add_argument("--stop-at-eof", action="store_true", help="end when standard input ends")
    options = parser.parse_args(arguments)
    try:
        password = options.password_file.read_text().rstrip("\r\n") if options.password_file else ""
        front = ClickHouseFront(options.path, options.port, user=options.user, password=password)
    except (SinkRefused, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1

    def stop(*_: object) -> None:
        # From a thread: shutdown waits for serve_forever, which this very thread may be running.
        threading.Thread(target=front.shutdown, daemon=True).start()

    def stop_at_eof() -> None:
        sys.stdin.read()
        front.shutdown()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    if options.stop_at_eof:
        threading.Thread(target=stop_at_eof, daemon=True).start()
    told = {"address": front.address, "dsn": front.dsn, "port": front.server_port, "path": str(options.path)}
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()
    try:
        front.serve_forever(poll_interval=0.05)
    finally:
        front.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
