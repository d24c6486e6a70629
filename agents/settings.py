"""Settings: `citybrain.toml`, overridden by the environment, overridden by flags; read once into a frozen object.

Secrets come from the environment or from files only: a key in the TOML file is refused.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from streams.intake import IntakeLimits
from streams.privacy import TEST_KEY

DEFAULT_FILE = Path("citybrain.toml")
ENVIRONMENT_PREFIX = "CITYBRAIN_"
MIN_KEY_BYTES = 16
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


class SettingsError(ValueError):
    """A setting cannot be used; the message names it, its value and the legal range."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a worker needs to know; each name is a key of `citybrain.toml` and, upper case, of the environment."""

    city: Path = Path("packs/sample")
    """Folder of the city pack."""
    brokers: str = "localhost:9092"
    """Kafka bootstrap addresses, comma-separated."""
    prefix: str = "citybrain."
    """Prefix of all topics."""
    group: str = "citybrain"
    """Consumer group; workers of one group share the partitions."""
    clickhouse: str = "clickhouse://localhost:8123/citybrain"
    """DSN of the database; `chdb:///path` is the embedded engine, for one process."""
    clickhouse_max_rows: int = 50_000
    """Rows that may wait before they are inserted."""
    clickhouse_max_age_s: float = 1.0
    """How long a row may wait before it is inserted."""
    host: str = "::"
    """Address that /metrics, /healthz and /readyz listen on; `::` is every address, IPv6 and IPv4."""
    port: int = 6066
    lateness_s: int = 600
    """A report further behind the watermark is late."""
    future_s: int = 600
    too_old_s: int = 30 * 86_400
    max_message_bytes: int = 1 << 20
    max_poll_records: int = 2_000
    """Records fetched at once; with the streams' buffers this bounds memory."""
    commit_interval_s: float = 1.0
    session_timeout_s: float = 30.0
    """A worker silent for so long loses its partitions to others."""
    pack_poll_s: float = 5.0
    """How often the pack's folder is looked at for a change, which is taken up between two batches; 0 never."""
    log_level: str = "INFO"
    caller_key: bytes = field(default=b"", repr=False)
    """Key of the callers' hashes: `CITYBRAIN_CALLER_KEY`, or the file named by `CITYBRAIN_CALLER_KEY_FILE`."""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("port", 0, 65_535),
            ("lateness_s", 0, 30 * 86_400),
            ("clickhouse_max_rows", 1, 1_000_000),
            ("clickhouse_max_age_s", 0, 600),
            ("max_poll_records", 1, 50_000),
            ("commit_interval_s", 0.05, 60),
            ("pack_poll_s", 0, 3_600),
            ("session_timeout_s", 6, 1_800),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise SettingsError(f"{name} = {value}: must be {low} to {high}")
        if self.log_level not in LOG_LEVELS:
            raise SettingsError(f"log_level = {self.log_level!r}: must be one of {', '.join(LOG_LEVELS)}")
        try:
            self.limits()
        except ValueError as error:
            raise SettingsError(str(error)) from error

    def limits(self) -> IntakeLimits:
        """What a message may be."""
        return IntakeLimits(self.future_s, self.too_old_s, self.max_message_bytes)

    def require_key(self) -> bytes:
        """The key of the callers' hashes, or :class:`SettingsError`: a worker does not start without one."""
        if not self.caller_key:
            raise SettingsError(
                "no key for the callers' hashes: set CITYBRAIN_CALLER_KEY, or CITYBRAIN_CALLER_KEY_FILE to a file with "
                f"at least {MIN_KEY_BYTES} random bytes (e.g. `head -c 32 /dev/urandom > caller.key`)"
            )
        if len(self.caller_key) < MIN_KEY_BYTES:
            raise SettingsError(
                f"the key for the callers' hashes has {len(self.caller_key)} bytes, at least {MIN_KEY_BYTES}"
            )
        if self.caller_key == TEST_KEY:
            raise SettingsError("the key for the callers' hashes is the published test key; make one of your own")
        return self.caller_key


def read_settings(
    file: Path | None = None, environment: Mapping[str, str] | None = None, flags: Mapping[str, Any] | None = None
) -> Settings:
    """The settings; later sources override earlier ones, and a flag of None is not given."""
    environment = os.environ if environment is None else environment
    values = {name: value for name, (value, _) in _given(file, environment, flags or {}).items()}
    values["caller_key"] = _caller_key(environment)
    if "city" in values:
        values["city"] = Path(values["city"])
    return Settings(**values)


def settings_origins(file: Path | None, environment: Mapping[str, str], flags: Mapping[str, Any]) -> dict[str, str]:
    """Where each setting that is not its default comes from: the file, the environment's variable, or the flag.

    Raises :class:`SettingsError` as :func:`read_settings` does.
    """
    origins = {name: origin for name, (_, origin) in _given(file, environment, flags).items()}
    if variable := key_variable(environment):
        origins["caller_key"] = variable
    return origins


def key_variable(environment: Mapping[str, str]) -> str | None:
    """The variable that gives the key of the callers' hashes, or names its file."""
    names = (ENVIRONMENT_PREFIX + "CALLER_KEY", ENVIRONMENT_PREFIX + "CALLER_KEY_FILE")
    return next((name for name in names if environment.get(name)), None)


def _given(file: Path | None, environment: Mapping[str, str], flags: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
    """Every setting given, but the key, and by whom; the last who gave it."""
    given: dict[str, tuple[Any, str]] = {}
    path = file or DEFAULT_FILE
    if file is not None or path.exists():
        given |= {name: (value, str(path)) for name, value in _from_file(path).items()}
    for each in fields(Settings):
        variable = ENVIRONMENT_PREFIX + each.name.upper()
        if each.name != "caller_key" and (text := environment.get(variable)) is not None:
            given[each.name] = (_converted(each.name, text, variable), variable)
    return given | {name: (value, "--" + name.replace("_", "-")) for name, value in flags.items() if value is not None}


def _from_file(path: Path) -> dict[str, Any]:
    try:
        read = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not TOML: {error}") from error
    known = {each.name for each in fields(Settings)}
    for name in read:
        if name == "caller_key":
            raise SettingsError(f"{path}: caller_key is a secret and may only stand in the environment or its own file")
        if name not in known:
            raise SettingsError(f"{path}: unknown setting {name!r}; known: {', '.join(sorted(known - {'caller_key'}))}")
    return {name: _converted(name, value, f"{path}: {name}") for name, value in read.items()}


_NUMBERS = {
    each.name: int if each.type == "int" else float for each in fields(Settings) if each.type in ("int", "float")
}


def _converted(name: str, value: Any, where: str) -> Any:
    kind = _NUMBERS.get(name)
    if kind is None:
        if not isinstance(value, str):
            raise SettingsError(f"{where} = {value!r}: must be text")
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise SettingsError(f"{where} = {value!r}: must be a number")
    try:
        return kind(value)
    except ValueError as error:
        raise SettingsError(f"{where} = {value!r}: must be a number") from error


def _caller_key(environment: Mapping[str, str]) -> bytes:
    variable = key_variable(environment)
    if variable is None:
        return b""
    text = environment[variable]
    if not variable.endswith("_FILE"):
        return text.encode()
    try:
        return Path(text).read_bytes().strip()
    except OSError as error:
        raise SettingsError(f"{variable} = {text}: cannot be read ({error.strerror})") from error
