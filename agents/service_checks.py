"""What `citybrain doctor` looks at around a worker: its pack, Kafka, ClickHouse, the clocks, its own port.

Each check takes what it needs and gives its findings; none changes anything anywhere, and none waits for longer than
it is told.
"""

from __future__ import annotations

import http.client
import json
import socket
import urllib.error
import urllib.request
import zoneinfo
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from agents.commands.console import counted
from agents.finding import Finding, fault, ok, unknown, warning
from sinks.chdb_folder import holder_of
from sinks.clickhouse_dsn import Dsn
from sinks.clickhouse_state import ClickHouseState, read_clickhouse_state
from sinks.errors import DsnError, SinkError, SinkRefused, SinkUnavailable
from sinks.kafka_state import (
    FIRST_METADATA_VERSION_OF_4,
    ClusterState,
    newest_times_ms,
    read_cluster_state,
    read_group_state,
)
from sinks.reach import addresses, why_unreachable
from sinks.topics import TopicAdministration, TopicSpec, differences
from streams.messages import INCIDENTS, REPORTS, TOPIC_OF_SOURCE
from streams.pack import CityPack, PackError, parse_pack, read_pack_files
from streams.pack_check import check_pack

_SKEW_WARNING_S = 2.0
_SKEW_FAULT_S = 60.0
"""A tenth of `future_s`: a machine that far off soon makes dead letters of sound messages."""
_LAG_WARNING_RECORDS = 100_000
_SHOWN = 3


def check_pack_folder(folder: Path) -> tuple[list[Finding], CityPack | None]:
    """Whether a worker can use the city pack; the pack if so."""
    remedy = f"`citybrain check-city {folder}` names every one by file and line"
    try:
        files = read_pack_files(folder)
    except PackError as error:
        return [fault("pack", str(error.faults[0]), "name the pack's folder with --city or CITYBRAIN_CITY")], None
    found = check_pack(files)
    faults = [each for each in found if each.severity == "fault"]
    if faults:
        what = f"{folder} has {counted(len(faults), 'fault')}, the first: {faults[0]}"
        return [fault("pack", what, remedy)], None
    pack = parse_pack(files)
    told = f"{pack.name}, version {pack.version}, {counted(len(pack.categories), 'category', 'categories')}"
    if found:
        what = f"{told}, {counted(len(found), 'warning')}, the first: {found[0]}"
        return [warning("pack", what, remedy)], pack
    return [ok("pack", told)], pack


# ---------------------------------------------------------------------------------------------------------- Kafka


def check_brokers(bootstrap: str, timeout_s: float) -> tuple[list[Finding], ClusterState | None]:
    """Whether Kafka can be reached, by the addresses given and by those it tells; its state if it answers."""
    try:
        silent = {each: why for each in addresses(bootstrap) if (why := why_unreachable(each, timeout_s)) is not None}
    except ValueError as error:
        return [fault("brokers", str(error), "correct --brokers or CITYBRAIN_BROKERS")], None
    told = ", ".join(f"{address} ({why})" for address, why in silent.items())
    if len(silent) == len(addresses(bootstrap)):
        return [fault("brokers", f"no Kafka at {told}", "start it, or name another with --brokers")], None
    try:
        cluster = read_cluster_state(bootstrap, timeout_s)
    except SinkUnavailable as error:
        remedy = "see that it is Kafka's own port, that its listener speaks plain text, and the broker's log"
        return [fault("brokers", str(error), remedy)], None
    findings = []
    if silent:
        remedy = "start it, or take it out of --brokers"
        findings.append(warning("brokers", f"nobody listens at {told}; the others answer", remedy))
    return [*findings, *judge_cluster(cluster, timeout_s)], cluster


def judge_cluster(cluster: ClusterState, timeout_s: float) -> list[Finding]:
    """Whether the brokers can be reached where they say they are, and are what they should be."""
    findings = []
    for number, address in cluster.brokers.items():
        if (why := why_unreachable(address, timeout_s)) is not None:
            what = f"broker {number} tells clients to use {address}, which cannot be reached from here ({why})"
            remedy = "set its advertised.listeners to what this machine reaches, or let the name resolve here"
            findings.append(fault("brokers", what, remedy))
    if cluster.is_embedded:
        what = "this is the embedded broker, which keeps little and forgets it"
        remedy = "it is for the demo and for tests; name an Apache Kafka 4 with --brokers"
        return [*findings, warning("brokers", what, remedy)]
    if cluster.controller_id < 0:
        remedy = "start its controllers, and look into their logs"
        findings.append(fault("brokers", "the cluster has no controller", remedy))
    level = cluster.metadata_version
    if level is None:
        what = "the brokers do not tell their version (the feature metadata.version)"
        findings.append(warning("brokers", what, "only Kafka 4 and later is tested: see what kafka-features.sh says"))
    elif level < FIRST_METADATA_VERSION_OF_4:
        what = f"the brokers are older than Kafka 4 (metadata.version {level})"
        findings.append(warning("brokers", what, "upgrade them; only Kafka 4 and later is tested"))
    if len(cluster.brokers) == 1:
        what = "there is one broker: while it is away nothing goes on, and its disk is the only copy"
        findings.append(warning("brokers", what, "for a city run three, with the topics on all of them"))
    told = f"{counted(len(cluster.brokers), 'broker')}, Kafka 4 or later (metadata.version {level})"
    return findings or [ok("brokers", f"{told}, cluster {cluster.cluster_id}")]


def check_topics(
    bootstrap: str, prefix: str, city: Path, wanted: Sequence[TopicSpec], cluster: ClusterState, timeout_s: float
) -> list[Finding]:
    """Whether the topics wanted are there, served, and as they should be; partitions may be any number."""
    specs = tuple(replace(spec, partitions=cluster.partitions.get(spec.name, spec.partitions)) for spec in wanted)
    missing = [spec.name for spec in specs if spec.name not in cluster.partitions]
    findings = []
    if missing:
        what = f"{len(missing)} of {len(specs)} topics are missing: {_some(missing)}"
        remedy = f"`citybrain topics create --brokers {bootstrap} --prefix {prefix} --city {city}`"
        findings.append(fault("topics", what, remedy))
    for name, places, judge, remedy in (
        ("nobody serves", cluster.without_leader, fault, "start the brokers that have them"),
        ("lack a replica that is in step", cluster.under_replicated, warning, "start the broker that is missing"),
    ):
        ours = [place for place in places if place.startswith(prefix)]
        if ours:
            findings.append(judge("topics", f"{counted(len(ours), 'partition')} {name}: {_some(ours)}", remedy))
    told = f"{len(specs)} topics, {counted(cluster.partitions.get(prefix + REPORTS, 0), 'shard')}"
    if cluster.is_embedded:
        return findings or [ok("topics", f"{told}; this broker has no retention and no compaction")]
    try:
        findings += _configuration_of(bootstrap, prefix, specs, len(cluster.brokers), timeout_s)
    except SinkError as error:
        findings.append(warning("topics", str(error), "ask again, or ask as a user who may describe the topics"))
    return findings or [ok("topics", f"{told}, retention and compaction as they should be")]


def _configuration_of(
    bootstrap: str, prefix: str, specs: Sequence[TopicSpec], brokers: int, timeout_s: float
) -> list[Finding]:
    with TopicAdministration(bootstrap, timeout_s) as administration:
        found = administration.found(spec.name for spec in specs)
    there = [spec for spec in specs if spec.name in found]
    # What these two hold cannot be made again from anything else.
    precious = (prefix + REPORTS, prefix + INCIDENTS)
    findings = [
        (fault if each.topic in precious else warning)("topics", f"{each.topic}: {each.what}", each.remedy)
        for each in differences(there, found)
    ]
    single = [name for name, topic in found.items() if topic.replication == 1]
    if single and brokers > 1:
        what = f"{len(single)} topics have one replica on {brokers} brokers: {_some(single)}"
        findings.append(warning("topics", what, "reassign them to three with kafka-reassign-partitions.sh"))
    return findings


def check_group(
    bootstrap: str, group: str, wanted: Sequence[TopicSpec], cluster: ClusterState, timeout_s: float
) -> list[Finding]:
    """Who reads, how far behind it is, and whether something was deleted before it was read."""
    partitions = {spec.name: cluster.partitions[spec.name] for spec in wanted if spec.name in cluster.partitions}
    if not partitions:
        return [unknown("group", "not looked at: there are no topics")]
    try:
        state = read_group_state(bootstrap, group, partitions, timeout_s)
    except SinkError as error:
        return [warning("group", str(error), f"see that this user may describe the group {group}")]
    findings = []
    if state.lost:
        what = f"{sum(state.lost.values()):,} records were deleted before {group} had read them: {_some(state.lost)}"
        findings.append(fault("group", what, "lengthen the topics' retention, and add workers or mend what stops them"))
    behind = sum(state.lag.values())
    waiting = f"{counted(behind, 'record')} wait to be acknowledged" if behind != 1 else "1 record waits"
    if state.members == 0 and behind:
        what = f"no worker runs in group {group}, and {waiting}"
        findings.append(warning("group", what, "start `citybrain worker`, or see why it ended in its log"))
    elif behind > _LAG_WARNING_RECORDS:
        worst = max(state.lag, key=lambda topic: state.lag[topic])
        what = f"{waiting}, most of them in {worst}"
        findings.append(warning("group", what, "start more workers, or look for the slow stage on the dashboard"))
    if state.state is not None and "rebalanc" in state.state:
        findings.append(
            warning("group", f"{group} is sharing its partitions out", "ask again; if it goes on, see the log")
        )
    members = "" if state.members is None else f"{counted(state.members, 'worker')}, "
    return findings or [ok("group", f"{group}: {members}{waiting}")]


# ----------------------------------------------------------------------------------------------------- ClickHouse


def check_clickhouse(
    text: str, timeout_s: float, now_s: Callable[[], float]
) -> tuple[list[Finding], ClickHouseState | None]:
    """Whether rows can be written; ClickHouse's state if it answers."""
    try:
        dsn = Dsn.parse(text)
    except DsnError as error:
        return [fault("clickhouse", str(error), "correct --clickhouse or CITYBRAIN_CLICKHOUSE")], None
    if dsn.embedded and (early := _embedded_folder(dsn)) is not None:
        return [early], None
    whole_s = max(1, int(timeout_s))
    bounded = replace(dsn, connect_timeout_s=min(whole_s, dsn.connect_timeout_s), timeout_s=min(whole_s, dsn.timeout_s))
    try:
        state = read_clickhouse_state(bounded, now_s)
    except SinkRefused as error:
        remedy = "correct user and password in CITYBRAIN_CLICKHOUSE, or let its administrator grant what is missing"
        return [fault("clickhouse", str(error), remedy)], None
    except SinkUnavailable as error:
        remedy = "start it, or correct CITYBRAIN_CLICKHOUSE; until then workers wait and lose nothing"
        return [fault("clickhouse", str(error), remedy)], None
    return _schema_and_grants(dsn, state), state


def _embedded_folder(dsn: Dsn) -> Finding | None:
    """What is to say of an embedded engine that cannot or must not be opened."""
    folder = Path(dsn.path)
    holder = holder_of(folder) if folder.is_dir() else None
    if holder is not None:
        return ok("clickhouse", f"{dsn} is open in process {holder or '(unknown)'}, a worker most likely")
    if not folder.exists():
        return ok("clickhouse", f"{dsn} is not there yet; a worker makes it")
    return None


def _schema_and_grants(dsn: Dsn, state: ClickHouseState) -> list[Finding]:
    told = f"{dsn}, version {state.version}"
    if not state.has_database:
        what = f"{told}: there is no database {dsn.database} yet"
        remedy = "a worker makes it if its user may CREATE DATABASE; else let the administrator make it"
        return [warning("clickhouse", what, remedy)]
    findings = []
    if state.schema_fault is not None:
        findings.append(fault("clickhouse", state.schema_fault, "run the version of the service that the schema is of"))
    if state.unwritable:
        remedy = f"GRANT SELECT, INSERT ON {dsn.database}.* TO {dsn.user}"
        findings.append(fault("clickhouse", state.unwritable[0], remedy))
    if state.pending:
        what = f"{told}: {counted(len(state.pending), 'migration')} to apply: {_some(state.pending)}"
        remedy = "a worker applies them at its start if its user may CREATE and ALTER; back up first if it matters"
        findings.append(warning("clickhouse", what, remedy))
    return findings or [ok("clickhouse", f"{told}, schema up to date, rows can be written")]


# ---------------------------------------------------------------------------------------------------------- clocks


def check_clock(
    now_s: Callable[[], float],
    clickhouse: ClickHouseState | None,
    newest_ms: Mapping[str, int] | None,
    timezone: str | None,
) -> list[Finding]:
    """Whether this machine's clock agrees with the others that can be seen, and whether it knows the city's hours.

    ClickHouse's clock is compared both ways.  Kafka tells no time: a record whose timestamp lies ahead shows that this
    clock or its sender's is wrong, and nothing more can be said.
    """
    findings = []
    seen = []
    remedy = "let both machines keep their time by NTP (chrony or systemd-timesyncd)"
    if clickhouse is not None:
        off_s, within_s = abs(clickhouse.ahead_s), clickhouse.within_s
        if off_s - within_s > _SKEW_WARNING_S:
            way = "ahead of" if clickhouse.ahead_s < 0 else "behind"
            judge = fault if off_s - within_s > _SKEW_FAULT_S else warning
            findings.append(judge("clock", f"this machine is {off_s:,.1f} s {way} ClickHouse", remedy))
        seen.append(f"within {off_s + within_s:.2f} s of ClickHouse's")
    ahead_s = {topic: ms / 1000 - now_s() for topic, ms in (newest_ms or {}).items()}
    if ahead_s:
        topic = max(ahead_s, key=lambda each: ahead_s[each])
        if ahead_s[topic] > _SKEW_WARNING_S:
            judge = fault if ahead_s[topic] > _SKEW_FAULT_S else warning
            what = f"a record of {topic} lies {ahead_s[topic]:,.1f} s ahead of this machine's clock"
            findings.append(judge("clock", what, f"{remedy}: this one's, and that of whoever sends there"))
        seen.append("no record lies ahead of it")
    findings += _time_zone(timezone)
    what = f"this machine's clock: {', '.join(seen)}" if seen else "no other clock can be seen to compare it with"
    known = f"; {timezone} is known" if timezone else ""
    return findings or [(ok if seen else unknown)("clock", what + known)]


def _time_zone(timezone: str | None) -> list[Finding]:
    try:
        zoneinfo.ZoneInfo(timezone or "Asia/Shanghai")
    except zoneinfo.ZoneInfoNotFoundError:
        what = f"the time zone {timezone or 'Asia/Shanghai'} is not known here"
        return [fault("clock", what, "install the time zone database (Debian: tzdata; or pip install tzdata)")]
    return []


def newest_source_times_ms(
    bootstrap: str, prefix: str, cluster: ClusterState, timeout_s: float
) -> dict[str, int] | None:
    """Greatest timestamp in each topic that others or workers write now; None if it is not told."""
    names = [prefix + topic for topic in (*TOPIC_OF_SOURCE.values(), REPORTS)]
    partitions = {name: cluster.partitions[name] for name in names if name in cluster.partitions}
    try:
        return newest_times_ms(bootstrap, partitions, timeout_s)
    except SinkUnavailable:
        return None


# ------------------------------------------------------------------------------------------------------- own port


def check_port(host: str, port: int, timeout_s: float) -> list[Finding]:
    """Whether a worker answers at its port, or could."""
    if port == 0:
        return [ok("port", "a worker takes any free one")]
    name = "localhost" if host in ("::", "", "0.0.0.0") else host
    address = f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
    try:
        ready = _readyz(address, timeout_s)
    except (OSError, ValueError, http.client.HTTPException):
        ready = None
    if ready is not None:
        if ready.get("ready"):
            return [ok("port", f"a worker answers at {address}, ready, with {ready.get('partitions')} partitions")]
        clickhouse = "reachable" if ready.get("clickhouse") else "away"
        what = f"the worker at {address} is not ready: {ready.get('partitions')} partitions, ClickHouse {clickhouse}"
        return [warning("port", what, "give it a minute after its start; then see its log")]
    if why_unreachable(address, timeout_s) is None:
        what = f"somebody else listens at {address}"
        return [fault("port", what, "stop that, or give the worker another port with --port")]
    if (why := _why_unbindable(host, port)) is not None:
        return [fault("port", f"a worker cannot listen at {host} port {port} ({why})", "correct --host or --port")]
    return [ok("port", f"{port} is free for a worker")]


def _readyz(address: str, timeout_s: float) -> dict[str, object] | None:
    """What a worker says of itself; None if it is none."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{address}/readyz", timeout=timeout_s) as response:
            body = response.read(10_000)
    except urllib.error.HTTPError as error:
        with error:
            body = error.read(10_000)
    told = json.loads(body)
    return told if isinstance(told, dict) and "ready" in told else None


def _why_unbindable(host: str, port: int) -> str | None:
    try:
        family, _, _, _, place = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError as error:
        return error.strerror or str(error)
    return None


# ---------------------------------------------------------------------------------------------------------- wording


def _some(names: Sequence[str] | Mapping[str, object]) -> str:
    """The first names of many."""
    names = list(names)
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
