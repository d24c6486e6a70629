"""Who can be asked with `--from`: a replay's folder, ClickHouse, or a running worker; and how answers are shown."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import SplitResult, urlsplit

import click
import msgspec
from rich.console import Console

from agents.commands.console import fail
from sinks.clickhouse_dsn import Dsn
from sinks.errors import DsnError, SinkError

if TYPE_CHECKING:
    from sinks.clickhouse import ClickHouseSink

_TIMEOUT_S = 10.0
_MAX_ANSWER_BYTES = 64 << 20
_WIDTH_IN_A_PIPE = 200
_MADE_BY_THE_ENGINE = "metadata"

T = TypeVar("T")

from_option = click.option(
    "--from",
    "place",
    required=True,
    metavar="DIR|DSN|URL",
    help="A replay's folder, ClickHouse (clickhouse://… or chdb:///…), or a running worker (http://host:port).",
)


def kind_of(place: str) -> str:
    """``folder``, ``worker`` or ``clickhouse``; another scheme is wrong usage."""
    scheme, separator, _ = place.partition("://")
    if not separator:
        return "folder"
    if scheme in ("http", "https"):
        return "worker"
    if scheme in ("chdb", "clickhouse"):
        return "clickhouse"
    raise click.BadParameter(
        f"{scheme}:// is neither a folder, nor clickhouse://, chdb:///, http:// or https://", param_hint="'--from'"
    )


def replay_files(folder: Path, *names: str) -> list[Path]:
    """Files of a replay's folder, all there; or one line that says what is missing, and exit 1."""
    if not folder.is_dir():
        fail(f"there is no folder {folder}; name the --out folder of `citybrain replay`")
    paths = [folder / name for name in names]
    for path in paths:
        if not path.is_file():
            if (folder / _MADE_BY_THE_ENGINE).is_dir():
                dsn = Dsn(path=str(folder.resolve()))
                fail(f"{folder} is the folder of an embedded ClickHouse: use --from {dsn}")
            unfinished = path.with_name(path.name + ".part").is_file()
            why = "its replay has not finished" if unfinished else "it is not the --out folder of a `citybrain replay`"
            fail(f"there is no {path.name} in {folder}: {why}")
    return paths


@contextmanager
def open_sink(dsn_text: str) -> Iterator[ClickHouseSink]:
    """The ClickHouse of a DSN, to be asked and left as it is; what it refuses is one line, and exit 1."""
    # Imported here: the driver takes a second, and a folder or a worker needs none of it.
    from sinks.clickhouse import ClickHouseSink

    try:
        dsn = Dsn.parse(dsn_text)
    except DsnError as error:
        raise click.BadParameter(str(error), param_hint="'--from'") from error
    # The engine would make the folder, and an empty database in it: a question must leave nothing behind.
    if dsn.embedded and not (Path(dsn.path) / _MADE_BY_THE_ENGINE).is_dir():
        fail(f"there is no embedded ClickHouse in {dsn.path}; name the folder that the worker writes to")
    sink = ClickHouseSink(dsn)
    try:
        yield sink
    except SinkError as error:
        fail(str(error))
    finally:
        sink.close()


def ask_worker(
    url: str,
    page: str,
    kind: type[T],
    *,
    unknown: Callable[[bytes], bool] = lambda body: False,
    too_long: str = "ask for less",
) -> T:
    """A worker's answer at a page, or one line that says why there is none, and exit 1.

    ``unknown`` tells whether the body of a 404 is an answer all the same.
    """
    parts = urlsplit(url)
    if not parts.hostname or "@" in parts.netloc or not _has_port(parts):
        raise click.BadParameter("a worker's address looks like http://host:6066", param_hint="'--from'")
    address = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}{page}"
    request = urllib.request.Request(address, headers={"Accept": "application/json"})
    handlers = [urllib.request.ProxyHandler({})] if parts.hostname in ("localhost", "127.0.0.1", "::1") else []
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=_TIMEOUT_S) as response:
            body = response.read(_MAX_ANSWER_BYTES + 1)
    except urllib.error.HTTPError as error:
        with error:
            body = error.read(_MAX_ANSWER_BYTES + 1)
        if error.code != 404 or not unknown(body):
            fail(f"{url} answers {error.code} {error.reason}: {_told(body) or _is_it_a_worker(error.code)}")
    except (OSError, http.client.HTTPException, ValueError) as error:
        # urllib wraps what happened in a URLError.
        reason = getattr(error, "reason", error)
        said = reason.strerror if isinstance(reason, OSError) and reason.strerror else str(reason)
        fail(f"cannot reach a worker at {url}: {said.lower() or 'no answer'}; is it running there?")
    if len(body) > _MAX_ANSWER_BYTES:
        fail(f"{url} answers with more than {_MAX_ANSWER_BYTES >> 20} MB; {too_long}")
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        fail(f"{url} does not answer as a worker does; is it the address of `citybrain worker`?")


def _has_port(parts: SplitResult) -> bool:
    """Whether its port, if it names one, is a number."""
    try:
        return parts.port is None or parts.port > 0
    except ValueError:
        return False


def _told(body: bytes) -> str | None:
    """What a worker that cannot answer says of it."""
    try:
        said = msgspec.json.decode(body, type=dict[str, str]).get("error")
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return None if said is None else printable(said)


def _is_it_a_worker(status: int) -> str:
    if status == 503:
        return "it cannot answer now; ask again when its /readyz says ready"
    return "is it the address of `citybrain worker`?" if status < 500 else "look into the worker's log"


@contextmanager
def plain_console() -> Iterator[Console]:
    """A console for text and tables, written at the end: as wide as the terminal, and wide enough in a pipe."""
    # A pipe has no width; the default of 80 would fold ids.
    width = None if Console().is_terminal else _WIDTH_IN_A_PIPE
    console = Console(markup=False, emoji=False, highlight=False, width=width)
    with console.capture() as captured:
        yield console
    # Tables pad their last column.
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def printable(text: str) -> str:
    """Text of strangers without what would move a terminal's cursor or turn the line around."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
