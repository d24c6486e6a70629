"""Incidents, assignments and dead letters into ClickHouse, and back for `explain`.

One code path: clickhouse-connect speaks to the embedded engine (``chdb:///path``) and to a server
(``clickhouse://…``) through the same client.

The driver's errors become ours in one place, `explained`:

    away for now   → SinkUnavailable   refused or broken connection, timeout, HTTP 5xx, overload, no disk space,
                                       and every error we do not know: waiting loses nothing
    will not do    → SinkRefused       wrong login, missing grant, missing table or database, a chdb path that is
                                       held by another process or a second path in this one

Tables are keyed by what their rows mean (incidents by id and ordinal, assignments by origin and revision, dead
letters by origin and reason), so a block inserted twice leaves the same state as once.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

import clickhouse_connect
import msgspec
import numpy as np
import numpy.typing as npt
from clickhouse_connect.driver.exceptions import ClickHouseError, DataError, ProgrammingError

from sinks.chdb_folder import check_folder
from sinks.clickhouse_dsn import Dsn
from sinks.errors import SinkError, SinkFull, SinkRefused, SinkUnavailable
from sinks.incident_sink import supersedes
from sinks.migrations import Migration, migrate
from streams.figures import VIEWS, Figures
from streams.messages import Assignment, DeadLetterRecord, Incident, Why

Row = TypeVar("Row")

_TIME = "DateTime64(3, 'UTC')"
_WORD = "LowCardinality(String)"

# The types the migrations give the columns; stated here so that an insert needs no DESCRIBE first, and so that a
# column added by a later migration does not change what this version writes.  A test compares them with the engine's.
INCIDENT_COLUMNS = {
    "incident_id": "String",
    "version": "UInt32",
    "status": _WORD,
    "category": _WORD,
    "category_name": _WORD,
    "priority": "UInt8",
    "department": _WORD,
    "grid_code": "Nullable(String)",
    "community_code": "LowCardinality(Nullable(String))",
    "street_code": "LowCardinality(Nullable(String))",
    "county_code": "LowCardinality(Nullable(String))",
    "layer_codes": "Map(LowCardinality(String), String)",
    "lon": "Nullable(Float64)",
    "lat": "Nullable(Float64)",
    "accuracy_m": "Nullable(Float64)",
    "opened_at": _TIME,
    "first_report_at": _TIME,
    "last_report_at": _TIME,
    "updated_at": _TIME,
    "closed_at": f"Nullable({_TIME})",
    "report_count": "UInt32",
    "repeat_count": "UInt32",
    "sources": "Map(LowCardinality(String), UInt32)",
    "witness_count": "Nullable(UInt32)",
    "confidence": "Nullable(Float64)",
    "sla_due_at": f"Nullable({_TIME})",
    "overdue": "Nullable(Bool)",
    "merged_into": "Nullable(String)",
    "recurrence_of": "Nullable(String)",
    "pack_version": _WORD,
    "evidence": "Array(Tuple(source LowCardinality(String), report_id String))",
}
ASSIGNMENT_COLUMNS = {
    "origin": "String",
    "revision": "UInt32",
    "source": _WORD,
    "report_id": "String",
    "event_time": _TIME,
    "incident_id": "Nullable(String)",
    "outcome": _WORD,
    "score": "Nullable(Int64)",
    "distance_m": "Nullable(Float64)",
    "gap_s": "Nullable(Float64)",
    "category": _WORD,
    "why": "String",
}
DEAD_LETTER_COLUMNS = {
    "origin": "String",
    "reason": _WORD,
    "field": "LowCardinality(Nullable(String))",
    "detail": "String",
    "source": _WORD,
    "sha256": "String",
    "size_bytes": "UInt64",
    "excerpt": "String",
    "ingested_at": _TIME,
    "service_version": _WORD,
}
COLUMNS_OF_TABLE = {
    "incidents": INCIDENT_COLUMNS,
    "assignments": ASSIGNMENT_COLUMNS,
    "dead_letters": DEAD_LETTER_COLUMNS,
}

# ClickHouse's own numbers (src/Common/ErrorCodes.cpp) for answers that will be the same next time.
_REFUSALS = {
    47: "UNKNOWN_IDENTIFIER",
    53: "TYPE_MISMATCH",
    60: "UNKNOWN_TABLE",
    62: "SYNTAX_ERROR",
    81: "UNKNOWN_DATABASE",
    164: "READONLY",
    192: "UNKNOWN_USER",
    193: "WRONG_PASSWORD",
    194: "REQUIRED_PASSWORD",
    497: "ACCESS_DENIED",
    516: "AUTHENTICATION_FAILED",
}
_LOGIN_CODES = {192, 193, 194, 516}

_SERVER_SAYS = re.compile(r"DB::Exception: ([^\n]{1,300}?)\s*(?:\(version|\(for url|Stack trace|\n|$)")

# ISO times come back as the contract writes them, so a row of JSONEachRow is an Incident.  Stated in the query,
# because chdb applies client settings with SET and back, and a server's defaults differ by version.
_AS_CONTRACT = (
    "SETTINGS date_time_output_format = 'iso', output_format_json_quote_64bit_integers = 0, "
    "output_format_json_named_tuples_as_objects = 1 FORMAT JSONEachRow"
)


def explained(dsn: Dsn, error: Exception) -> SinkError:
    """The one place where a driver's error becomes ours."""
    code = getattr(error, "code", None)
    text = _in_one_line(error)
    if dsn.embedded and "already initialized with path" in str(error):
        return SinkRefused(f"{dsn}: this process has the embedded engine open in another folder: close that one first")
    if dsn.embedded and "Unable to open the chdb engine" in str(error):
        return SinkRefused(f"{dsn}: the engine does not start there ({text}): give an empty folder you may write to")
    if code in _LOGIN_CODES:
        return SinkRefused(f"{dsn}: ClickHouse refuses the login of user {dsn.user!r}: check user and password")
    if code in _REFUSALS:
        return SinkRefused(f"{dsn}: ClickHouse refuses: {text}")
    if isinstance(error, DataError | ProgrammingError):
        return SinkRefused(f"{dsn}: the driver refuses: {text}")
    return SinkUnavailable(f"{dsn}: ClickHouse is not available: {text}")


def _in_one_line(error: BaseException) -> str:
    """What happened, without the driver's wrapping, addresses of objects and stack traces."""
    if told := _SERVER_SAYS.search(str(error)):
        return told[1].strip()
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, TimeoutError):
            return "no answer in time"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror.lower()
        # urllib3 hides what it gave up for in `reason`.
        reason = getattr(cause, "reason", None)
        cause = reason if isinstance(reason, BaseException) else cause.__cause__ or cause.__context__
    line = str(error).strip().split("\n", 1)[0]
    return line if len(line) <= 300 else line[:299] + "…"


@dataclass
class _Block:
    """Rows of one table on their way, kept until they are in."""

    table: str
    rows: Sequence[Any]


class ClickHouseSink:
    """A bounded buffer before three tables, and the questions `explain` asks of them.

    Nothing is opened before it is needed: `prepare` at start, or the first flush or question.  After an error the
    connection is opened anew.  Safe to add from one thread while another flushes; one flush at a time.

    Parameters
    ----------
    dsn
        Where; text is parsed.
    max_rows
        At this many buffered rows `full` is true and a flush is due.  The buffer's bound is twice this and one batch,
        so that a caller who looked at `full` can add the three parts of its batch; beyond, adding raises `SinkFull`.
    max_age_s
        A flush is due when the oldest buffered row is this old.
    clock
        Seconds, monotonic.
    must_exist
        For readers: a database that is not there is refused instead of made, so that a misspelt address leaves no
        empty database behind.
    """

    def __init__(
        self,
        dsn: Dsn | str,
        *,
        max_rows: int = 50_000,
        max_age_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        must_exist: bool = False,
    ) -> None:
        """Keep the settings; nothing is opened yet."""
        if max_rows < 1:
            raise ValueError(f"max_rows is {max_rows}, must be at least 1")
        if max_age_s < 0:
            raise ValueError(f"max_age_s is {max_age_s}, must be 0 or more")
        self.dsn = Dsn.parse(dsn) if isinstance(dsn, str) else dsn
        self.max_rows = max_rows
        self.max_age_s = max_age_s
        self._clock = clock
        self._must_exist = must_exist
        self._client: Any = None
        self._buffer = threading.Lock()
        self._one_call = threading.RLock()
        self._incident_of_id: dict[str, Incident] = {}
        self._assignments: list[Assignment] = []
        self._dead_letters: list[DeadLetterRecord] = []
        self._pending: deque[_Block] = deque()
        self._oldest_s: float | None = None
        self._pending_since_s: float | None = None
        self.rows_written = dict.fromkeys(COLUMNS_OF_TABLE, 0)

    # ------------------------------------------------------------------------------------------------ the buffer

    @property
    def rows(self) -> int:
        """Rows buffered and not yet known to be in ClickHouse."""
        with self._buffer:
            return self._rows()

    def _rows(self) -> int:
        waiting = len(self._incident_of_id) + len(self._assignments) + len(self._dead_letters)
        return waiting + sum(len(block.rows) for block in self._pending)

    @property
    def full(self) -> bool:
        """Whether the caller must flush before adding more."""
        return self.rows >= self.max_rows

    def due(self, now_s: float | None = None) -> bool:
        """Whether it is time to flush, by size or by age; `now_s` on the sink's clock."""
        with self._buffer:
            oldest_s = self._oldest_s if self._pending_since_s is None else self._pending_since_s
            if oldest_s is None:
                return False
            now_s = self._clock() if now_s is None else now_s
            return self._rows() >= self.max_rows or now_s - oldest_s >= self.max_age_s

    def add_incidents(self, incidents: Sequence[Incident]) -> None:
        """Buffer incidents; of several states of one incident only the one that stands is kept."""
        self._add((), incidents, ())

    def add_assignments(self, assignments: Sequence[Assignment]) -> None:
        """Buffer assignments."""
        self._add(assignments, (), ())

    def add_dead_letters(self, dead_letters: Sequence[DeadLetterRecord]) -> None:
        """Buffer dead letters."""
        self._add((), (), dead_letters)

    def _add(
        self, assignments: Sequence[Assignment], incidents: Sequence[Incident], dead_letters: Sequence[DeadLetterRecord]
    ) -> None:
        if not (assignments or incidents or dead_letters):
            return
        with self._buffer:
            waiting = self._rows()
            if waiting >= 2 * self.max_rows:
                raise SinkFull(f"{self.dsn}: {waiting} rows wait to be written, twice max_rows: flush first")
            if self._oldest_s is None:
                self._oldest_s = self._clock()
            for incident in incidents:
                old = self._incident_of_id.get(incident.incident_id)
                if old is None or supersedes(incident, old):
                    self._incident_of_id[incident.incident_id] = incident
            self._assignments += assignments
            self._dead_letters += dead_letters

    def write(
        self, assignments: Sequence[Assignment], incidents: Sequence[Incident], dead_letters: Sequence[DeadLetterRecord]
    ) -> None:
        """Add one batch and flush when due, so that replay and demo write here as to any other sink.

        Raises
        ------
        SinkFull
            Nothing of the batch was taken: `flush`, then write it again.
        SinkUnavailable, SinkRefused
            The whole batch is in the buffer: `flush` again, do not write it again.
        """
        self._add(assignments, incidents, dead_letters)
        if self.due():
            self.flush()

    def flush(self) -> dict[str, int]:
        """Insert everything buffered; return the rows inserted by table.

        Blocks until it is done.  On an error the rows stay buffered, those already in are not sent again, and the
        next flush goes on where this one stopped.

        Raises
        ------
        SinkUnavailable, SinkRefused
        """
        with self._one_call:
            written = dict.fromkeys(COLUMNS_OF_TABLE, 0)
            # What an earlier flush left goes first, and alone: taken together with each attempt's new rows, an hour
            # without ClickHouse would end in thousands of small inserts.
            self._insert_pending(written)
            self._take()
            self._insert_pending(written)
            return written

    def _insert_pending(self, written: dict[str, int]) -> None:
        while self._pending:
            block = self._pending[0]
            self._insert(block)
            with self._buffer:
                self._pending.popleft()
                if not self._pending:
                    self._pending_since_s = None
            written[block.table] += len(block.rows)
            self.rows_written[block.table] += len(block.rows)

    def _take(self) -> None:
        with self._buffer:
            self._pending_since_s, self._oldest_s = self._oldest_s, None
            # Incidents first: whoever reads an assignment then finds its incident.
            taken: tuple[tuple[str, Sequence[Any]], ...] = (
                ("incidents", list(self._incident_of_id.values())),
                ("assignments", self._assignments),
                ("dead_letters", self._dead_letters),
            )
            self._pending += [_Block(table, rows) for table, rows in taken if rows]
            self._incident_of_id, self._assignments, self._dead_letters = {}, [], []

    def _insert(self, block: _Block) -> None:
        types = COLUMNS_OF_TABLE[block.table]
        columns = columns_of(block.table, block.rows)
        self._ask(
            lambda client: client.insert(
                block.table,
                columns,
                column_names=list(types),
                column_type_names=list(types.values()),
                column_oriented=True,
                # Assignments are partitioned by month; a recording of twenty years in one flush exceeds the default
                # of 100, and would do so for ever.
                settings={"max_partitions_per_insert_block": 0},
            )
        )

    # -------------------------------------------------------------------------------------------- the connection

    def prepare(self) -> list[Migration]:
        """Connect, create the database where it is missing, bring the schema up to date; return what was applied.

        Raises
        ------
        SinkUnavailable, SinkRefused, MigrationError
        """
        with self._one_call:
            return self._ask(migrate)  # type: ignore[no-any-return]

    def ping(self, timeout_s: float = 3.0) -> bool:
        """Whether ClickHouse answers now; for `/readyz`.  Never raises a SinkError.

        False as well while another call keeps the connection busy for longer than the timeout.
        """
        if not self._one_call.acquire(timeout=timeout_s):
            return False
        try:
            return bool(self._ask(lambda client: client.ping(timeout_s)))
        except SinkError:
            return False
        finally:
            self._one_call.release()

    def _ask(self, question: Callable[[Any], Any]) -> Any:
        # The embedded client is one handle and the order of inserts matters, so calls take turns.
        with self._one_call:
            try:
                if self._client is None:
                    self._client = _connect(self.dsn, must_exist=self._must_exist)
                return question(self._client)
            except (ClickHouseError, OSError) as error:
                self._disconnect()
                raise explained(self.dsn, error) from error

    def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def close(self, summary: Mapping[str, object] | None = None) -> None:
        """Flush what is buffered and let go of the connection (and of a chdb folder's lock).

        ``summary`` has no table; it is taken so that this is an `IncidentSink`.
        """
        del summary
        with self._one_call:
            try:
                if self.rows:
                    self.flush()
            finally:
                self._disconnect()

    # ------------------------------------------------------------------------------------------------- questions

    def incident(self, incident_id: str) -> Incident | None:
        """The current state of one incident."""
        found = self._rows_of(
            f"SELECT {', '.join(INCIDENT_COLUMNS)} FROM incidents FINAL WHERE incident_id = {{incident_id:String}}",
            {"incident_id": incident_id},
            Incident,
        )
        return found[0] if found else None

    def incidents(self, limit: int = 1_000_000) -> list[Incident]:
        """Current states, sorted by id."""
        return self._rows_of(
            f"SELECT {', '.join(INCIDENT_COLUMNS)} FROM incidents FINAL ORDER BY incident_id LIMIT {{limit:UInt64}}",
            {"limit": limit},
            Incident,
        )

    def assignments_of(self, incident_id: str, limit: int = 1000) -> list[Assignment]:
        """What an incident consists of, and what has left it again, in order of event time."""
        where = (
            "incident_id = {incident_id:String} "
            "OR (revision > 0 AND JSONExtractString(why, 'runner_up', 'incident_id') = {incident_id:String})"
        )
        return self._assignments_where(where, {"incident_id": incident_id}, limit)

    def assignment_of_report(self, source: str | None, report_id: str, limit: int = 1000) -> list[Assignment]:
        """Every answer to reports of that id: of all sources where `source` is None."""
        where = "report_id = {report_id:String}"
        parameters: dict[str, object] = {"report_id": report_id}
        if source is not None:
            where += " AND source = {source:String}"
            parameters["source"] = source
        return self._assignments_where(where, parameters, limit)

    def assignments(self, limit: int = 1_000_000) -> list[Assignment]:
        """Every answer, in order of event time."""
        return self._assignments_where("1", {}, limit)

    def counts(self) -> dict[str, int]:
        """Rows by table, each key once."""
        selects = ", ".join(f"(SELECT count() FROM {table} FINAL)" for table in COLUMNS_OF_TABLE)
        row = self._ask(lambda client: client.query(f"SELECT {selects}").result_rows)[0]
        return dict(zip(COLUMNS_OF_TABLE, map(int, row), strict=True))

    def figures(self) -> Figures:
        """The figures of the city's day, as the views have them."""
        views = {view: self._rows_of(f"SELECT * FROM {view} ORDER BY ALL", {}, kind) for view, kind in VIEWS.items()}
        return msgspec.convert(views, Figures, from_attributes=True)

    def _assignments_where(self, where: str, parameters: Mapping[str, object], limit: int) -> list[Assignment]:
        stored = self._rows_of(
            f"SELECT {', '.join(ASSIGNMENT_COLUMNS)} FROM assignments FINAL WHERE {where} "
            "ORDER BY event_time, origin, revision LIMIT {limit:UInt64}",
            {**parameters, "limit": limit},
            _StoredAssignment,
        )
        return [row.assignment() for row in stored]

    def _rows_of(self, query: str, parameters: Mapping[str, object], kind: type[Row]) -> list[Row]:
        answer: bytes = self._ask(
            lambda client: client.raw_query(f"{query} {_AS_CONTRACT}", parameters=dict(parameters))
        )
        return msgspec.json.Decoder(kind).decode_lines(answer)


class _StoredAssignment(Assignment, kw_only=True):
    """An assignment as the table has it: `why` is JSON inside JSON."""

    why: str  # type: ignore[assignment]

    def assignment(self) -> Assignment:
        fields = {name: getattr(self, name) for name in ASSIGNMENT_COLUMNS}
        fields["why"] = _WHY.decode(self.why)
        return Assignment(**fields)


_WHY = msgspec.json.Decoder(Why)
_JSON = msgspec.json.Encoder(order="deterministic")


def open_client(dsn: Dsn) -> Any:
    """A client that has answered once; the folder of an embedded engine is made where it is missing.

    Raises :class:`SinkRefused` for a folder that cannot be had, and the driver's errors, which `explained` explains.
    """
    if dsn.embedded:
        check_folder(dsn.path)
        return clickhouse_connect.get_client(interface="chdb", path=dsn.path)
    return clickhouse_connect.get_client(
        interface="https" if dsn.secure else "http",
        host=dsn.host,
        port=dsn.port,
        username=dsn.user,
        password=dsn.password,
        verify=dsn.verify,
        ca_cert=dsn.ca_cert or None,
        connect_timeout=dsn.connect_timeout_s,
        send_receive_timeout=dsn.timeout_s,
        # Without a session, questions may overlap and a restarted server has nothing to have forgotten.
        autogenerate_session_id=False,
        dedicated_pool=True,
        query_retries=0,  # the caller waits and tries again, with its own pauses
        client_name="city-brain-streams",
    )


def database_exists(client: Any, database: str) -> bool:
    """Whether the client's server has the database."""
    question = "SELECT count() FROM system.databases WHERE name = {name:String}"
    return bool(client.command(question, {"name": database}, use_database=False))


def _connect(dsn: Dsn, *, must_exist: bool) -> Any:
    """Open a client whose database exists."""
    nothing_there = f"{dsn}: there is no database {dsn.database} there; a worker makes it, so check the address"
    if dsn.embedded and must_exist and not Path(dsn.path).is_dir():
        raise SinkRefused(nothing_there)
    client = open_client(dsn)
    try:
        exists = database_exists(client, dsn.database)
        if not exists and must_exist:
            raise SinkRefused(nothing_there)
        if not exists:
            client.command(f"CREATE DATABASE IF NOT EXISTS {dsn.database}", use_database=False)
        client.database = dsn.database
    except BaseException:
        client.close()
        raise
    return client


# ------------------------------------------------------------------------------------------- from structs to columns


def milliseconds(times: Iterable[str]) -> npt.NDArray[np.int64]:
    """Unix milliseconds of RFC 3339 UTC times with milliseconds, ``2026-06-01T00:00:00.000Z`` and nothing else.

    Raises
    ------
    ValueError
        A time in another form.
    """
    times = list(times)
    letters = np.frombuffer("".join(times).encode("ascii", "replace"), dtype=np.uint8)
    # One length for all makes a table of letters; a wrong one among them shows in its last column or to the parser.
    if set(map(len, times)) <= {24} and (letters[23::24] == ord("Z")).all():
        texts = letters.view("S24").astype("S23")
        return texts.astype("datetime64[ms]").astype(np.int64)
    bad = next(time for time in times if len(time) != 24 or not time.endswith("Z"))
    raise ValueError(f"{bad!r} is not a time in UTC with milliseconds")


def _ticks(times: list[str]) -> list[int]:
    ticks: list[int] = milliseconds(times).tolist()
    return ticks


def _ticks_or_none(times: list[str | None]) -> list[int | None]:
    given = [time for time in times if time is not None]
    if not given:
        return [None] * len(times)
    ticks = iter(_ticks(given))
    return [None if time is None else next(ticks) for time in times]


def columns_of(table: str, rows: Sequence[Any]) -> list[list[Any]]:
    """The columns of `COLUMNS_OF_TABLE[table]` from its structs, as clickhouse-connect takes them.

    Times become integer milliseconds, evidence pairs, `why` its JSON; everything else stays as it is.
    """
    # Column by column: a tuple per row would be 50,000 containers at once, and Python's collector, walking all the
    # rows each time it is woken, makes that ten times slower.
    return [_column(name, kind, list(map(attrgetter(name), rows))) for name, kind in COLUMNS_OF_TABLE[table].items()]


def _column(name: str, kind: str, values: list[Any]) -> list[Any]:
    if kind == _TIME:
        return _ticks(values)
    if kind == f"Nullable({_TIME})":
        return _ticks_or_none(values)
    if name == "evidence":
        return [[(one.source, one.report_id) for one in some] for some in values]
    if name == "why":
        return _JSON.encode_lines(values).decode().split("\n")[:-1]
    return values
