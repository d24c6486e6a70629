"""`citybrain doctor`: all that a worker needs, looked at from where it runs, without changing anything.

The checks stand in `agents/service_checks.py` and `agents/machine_checks.py`; here they are put in order.  Those of
Kafka, of ClickHouse and of this machine run side by side, and one that does not end in time is a finding like any
other: the doctor is for when everything is down.
"""

from __future__ import annotations

import difflib
import logging
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from agents.finding import Finding, fault, ok, unknown, warning
from agents.machine_checks import (
    check_disk,
    check_libraries,
    check_limits,
    check_processor,
    kernel_folder,
)
from agents.service_checks import (
    check_brokers,
    check_clickhouse,
    check_clock,
    check_group,
    check_pack_folder,
    check_port,
    check_topics,
    newest_source_times_ms,
)
from agents.settings import DEFAULT_FILE, Settings, SettingsError, key_variable, read_settings, settings_origins
from sinks.clickhouse_dsn import Dsn
from sinks.errors import DsnError
from sinks.topics import topic_table
from streams.pack import CityPack

T = TypeVar("T")

_ASKS = 6
"""How many questions one after the other the longest line of checks may put, each with its own time limit."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be examined, and how.

    Attributes
    ----------
    file, environment, flags
        Where settings come from, as :func:`agents.settings.read_settings` takes them.
    timeout_s : float
        How long one question to Kafka, ClickHouse or a worker may take.
    least_free_bytes : int
        Less room than this on a disk is a fault.
    now_s : callable
        This machine's clock, Unix seconds.
    """

    file: Path | None
    environment: Mapping[str, str]
    flags: Mapping[str, Any]
    timeout_s: float = 5.0
    least_free_bytes: int = 200 << 20
    now_s: Callable[[], float] = time.time


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found, in the order in which it is told, and the settings by name: as shown, and where from."""

    findings: tuple[Finding, ...]
    settings: Mapping[str, tuple[str, str]]


def examine(asked: Asked) -> Diagnosis:
    """Look at everything; ends within some multiples of ``timeout_s``, whatever is down."""
    # What clients have to say of what they do not reach is said by the findings.
    former = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        return _examine(asked)
    finally:
        logging.disable(former)


def _examine(asked: Asked) -> Diagnosis:
    settings, findings, shown = _configuration(asked)
    machine = _started(lambda: _machine(asked, settings))
    if settings is None:
        for check in ("key", "pack", "brokers", "topics", "group", "clickhouse", "clock", "port"):
            findings.append(unknown(check, "not looked at: the configuration must be right first"))
        _ended(machine, asked, "machine", findings)
        return Diagnosis(tuple(findings), shown)
    findings += _key(settings, asked.environment)
    clickhouse = _started(lambda: check_clickhouse(settings.clickhouse, asked.timeout_s, asked.now_s))
    port = _started(lambda: (check_port(settings.host, settings.port, asked.timeout_s), None))
    # Before Kafka: which topics there should be depends on it.
    pack = _ended(_started(lambda: check_pack_folder(settings.city)), asked, "pack", findings)
    kafka = _started(lambda: _kafka(settings, pack, asked))
    times_ms = _ended(kafka, asked, "brokers", findings)
    state = _ended(clickhouse, asked, "clickhouse", findings)
    if _is_embedded(settings):
        state = None  # its clock is this machine's, with which there is nothing to compare
    findings += check_clock(asked.now_s, state, times_ms, None if pack is None else pack.timezone)
    _ended(port, asked, "port", findings)
    _ended(machine, asked, "machine", findings)
    return Diagnosis(tuple(findings), shown)


# --------------------------------------------------------------------------------------------------- configuration


def _configuration(asked: Asked) -> tuple[Settings | None, list[Finding], dict[str, tuple[str, str]]]:
    try:
        settings = read_settings(asked.file, asked.environment, asked.flags)
        origins = settings_origins(asked.file, asked.environment, asked.flags)
    except SettingsError as error:
        remedy = "correct it there; `citybrain worker --help` and agents/settings.py say what each setting is for"
        return None, [fault("configuration", str(error), remedy)], {}
    shown = {
        each.name: (_shown(each.name, getattr(settings, each.name)), origins.get(each.name, "default"))
        for each in fields(Settings)
    }
    findings = list(_misspelt(asked.environment))
    return settings, findings or [ok("configuration", _where_from(asked, origins))], shown


def _where_from(asked: Asked, origins: Mapping[str, str]) -> str:
    kinds = Counter(
        "options" if origin.startswith("--") else "the environment" if origin.startswith("CITYBRAIN_") else origin
        for origin in origins.values()
    )
    file = asked.file or DEFAULT_FILE
    parts = [f"{count} from {kind}" for kind, count in kinds.items()]
    absent = "" if file.exists() else f" (there is no {file})"
    return f"{', '.join(parts)}, the others are defaults{absent}" if parts else f"all settings are defaults{absent}"


def _shown(name: str, value: Any) -> str:
    if name == "caller_key":
        return f"{len(value)} bytes" if value else "none"
    if name == "clickhouse":
        try:
            return str(Dsn.parse(value))
        except DsnError:
            return "not an address"  # and may hold a password all the same
    return str(value)


def _misspelt(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Variables that look like a setting's and are none."""
    known = ["CITYBRAIN_" + each.name.upper() for each in fields(Settings)] + ["CITYBRAIN_CALLER_KEY_FILE"]
    for name in sorted(environment):
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.88)
        if name.startswith("CITYBRAIN_") and name not in known and near:
            yield warning("configuration", f"{name} is no setting", f"rename it if you meant {near[0]}, or unset it")


def _key(settings: Settings, environment: Mapping[str, str]) -> list[Finding]:
    try:
        key = settings.require_key()
    except SettingsError as error:
        what, _, remedy = str(error).partition(": ")
        make = "make one: head -c 32 /dev/urandom | base64 > caller.key, and CITYBRAIN_CALLER_KEY_FILE=caller.key"
        return [fault("key", what, remedy or make)]
    variable = key_variable(environment) or ""
    told = f"{len(key)} bytes, from {variable}"
    if variable.endswith("_FILE"):
        path = Path(environment[variable])
        told += f" ({path})"
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            return [warning("key", f"{path} can be read by others than its owner", f"chmod 600 {path}")]
    return [ok("key", told)]


# ---------------------------------------------------------------------------------------------- what must be asked


def _kafka(settings: Settings, pack: CityPack | None, asked: Asked) -> tuple[list[Finding], dict[str, int] | None]:
    """Brokers, topics, group, and the newest timestamps."""
    findings, cluster = check_brokers(settings.brokers, asked.timeout_s)
    if cluster is None:
        return [*findings, *(unknown(check, "not looked at: no broker answers") for check in ("topics", "group"))], None
    wanted = topic_table(settings.prefix, platforms=() if pack is None else pack.platform_topics)
    findings += check_topics(settings.brokers, settings.prefix, settings.city, wanted, cluster, asked.timeout_s)
    findings += check_group(settings.brokers, settings.group, wanted, cluster, asked.timeout_s)
    return findings, newest_source_times_ms(settings.brokers, settings.prefix, cluster, asked.timeout_s)


def _is_embedded(settings: Settings) -> bool:
    return settings.clickhouse.startswith("chdb:")


def _machine(asked: Asked, settings: Settings | None) -> tuple[list[Finding], None]:
    folders = [("compiled kernels", kernel_folder())]
    is_embedded = settings is not None and _is_embedded(settings)
    if settings is not None and is_embedded:
        # Of an address that is none the check of ClickHouse speaks.
        with suppress(DsnError):
            folders.append(("embedded ClickHouse", Path(Dsn.parse(settings.clickhouse).path)))
    findings = [
        *check_disk(folders, asked.least_free_bytes),
        *check_limits(),
        *check_libraries(),
        *check_processor(has_embedded_engine=is_embedded),
    ]
    return findings, None


# ------------------------------------------------------------------------------------------------------ side by side


def _started(work: Callable[[], T]) -> Future[T]:
    """Work begun in a thread that keeps nobody from ending: a name that does not resolve may take minutes to say so."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001  told by whoever waits for it
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def _ended(future: Future[tuple[list[Finding], T]], asked: Asked, check: str, findings: list[Finding]) -> T | None:
    """Add what it found and give the rest of its result; what does not come in time, or breaks, is a finding."""
    limit_s = _ASKS * asked.timeout_s
    try:
        error = future.exception(limit_s)
    except TimeoutError:
        what = f"no answer within {limit_s:g} s"
        findings.append(fault(check, what, "see that names resolve and that a firewall refuses instead of dropping"))
        return None
    if error is not None:
        what = f"the check itself broke: {type(error).__name__}: {error}"
        findings.append(fault(check, what, "please report this; what it looks at may be well all the same"))
        return None
    found, rest = future.result()
    findings += found
    return rest
