"""TOML under examination: tables whose getters name line, key, value and legal range where a pack is at fault."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from streams.pack_entries import Fault
from streams.toml_lines import TomlLines


class TomlTable:
    """One TOML table under examination: every getter names key, value and legal range where they disagree.

    A getter answers with the default where the key is not there or its value is at fault; ``used`` are the keys that
    were asked for, and `sound` turns False with the first fault.
    """

    def __init__(self, file: TomlFile, path: tuple[str | int, ...], values: Mapping[str, Any]) -> None:
        self.file = file
        self.path = path
        self.values = values
        self.used: set[str] = set()
        self.sound = True

    def fault(self, key: str | None, message: str, severity: str = "fault") -> None:
        """Note a fault of a key, or of the table as a whole."""
        path = self.path if key is None else (*self.path, key)
        self.file.faults.append(Fault(self.file.name, self.file.lines.line(path), message, severity))
        if severity == "fault":
            self.sound = False

    def get(self, key: str, required: bool) -> Any:
        """The value as it is, None without it."""
        self.used.add(key)
        if key not in self.values and required:
            self.fault(key, f"{key} is missing")
        return self.values.get(key)

    def text(
        self, key: str, default: str | None = None, *, pattern: re.Pattern[str] | None = None, required: bool = False
    ) -> str | None:
        """A text that is not blank and, with a pattern, matches it as a whole."""
        value = self.get(key, required)
        if value is None:
            return default
        if not isinstance(value, str) or not value.strip():
            self.fault(key, f"{key} = {shown(value)} must be a non-empty string")
            return default
        if pattern is not None and not pattern.fullmatch(value):
            self.fault(key, f"{key} = {shown(value)} must match {pattern.pattern}")
            return default
        return value

    def choice(self, key: str, default: str | None, legal: Sequence[str], *, required: bool = False) -> str | None:
        """One of the legal words."""
        value = self.get(key, required)
        if value is None:
            return default
        if value not in legal:
            self.fault(key, f"{key} = {shown(value)} must be one of {', '.join(legal)}")
            return default
        return str(value)

    def number(
        self,
        key: str,
        default: float | None,
        low: float,
        high: float,
        *,
        above_low: bool = False,
        required: bool = False,
    ) -> float | None:
        """A finite number from ``low`` (above it with ``above_low``) to ``high``."""
        value = self.get(key, required)
        if value is None:
            return default
        sound = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not sound or not low <= value <= high or (above_low and value == low):
            legal = "finite" if math.isinf(low) else f"{'above' if above_low else 'from'} {low:g} to {high:g}"
            self.fault(key, f"{key} = {shown(value)} must be a number, {legal}")
            return default
        return float(value)

    def whole(self, key: str, default: int, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``."""
        value = self.get(key, False)
        if value is None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            self.fault(key, f"{key} = {shown(value)} must be a whole number from {low} to {high}")
            return default
        return value

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.get(key, False)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.fault(key, f"{key} = {shown(value)} must be true or false")
            return default
        return value

    def table(self, key: str) -> TomlTable | None:
        """A table inside this one."""
        value = self.get(key, False)
        if value is None:
            return None
        if not isinstance(value, dict):
            self.fault(key, f"{key} = {shown(value)} must be a table")
            return None
        return TomlTable(self.file, (*self.path, key), value)

    def tables(self, key: str) -> Iterator[TomlTable]:
        """Each table of an array of tables."""
        value = self.get(key, False)
        if value is None:
            return
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            self.fault(key, f"{key} must be written as [[{key}]] tables")
            return
        for i, item in enumerate(value):
            yield TomlTable(self.file, (*self.path, key, i), item)

    def warn_of_unknown_keys(self) -> None:
        """Warn of every key that nobody has asked for."""
        for key in self.values:
            if key not in self.used:
                self.fault(key, f"{key} is not a key that is known here; it has no effect", "warning")


class TomlFile:
    """A TOML file of the pack; `root` is None where it is missing or is no TOML."""

    def __init__(self, name: str, files: Mapping[str, bytes], faults: list[Fault]) -> None:
        self.name = name
        self.faults = faults
        self.root: TomlTable | None = None
        self.lines = TomlLines("")
        if name not in files:
            return
        text = decode_text(name, files[name], faults)
        if text is None:
            return
        try:
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            at = re.search(r"\(at line (\d+)", str(error))
            line = int(at[1]) if at else text.count("\n") + 1
            faults.append(Fault(name, line, f"invalid TOML: {re.sub(r' [(]at .*[)]$', '', str(error))}"))
            return
        except RecursionError:
            faults.append(Fault(name, None, "invalid TOML: nested too deeply"))
            return
        except ValueError:
            faults.append(Fault(name, None, "invalid TOML: a whole number of more digits than can be read"))
            return
        self.lines = TomlLines(text)
        self.root = TomlTable(self, (), values)


def decode_text(name: str, data: bytes, faults: list[Fault]) -> str | None:
    """The text of a file of a pack, without a byte order mark; None, with a fault, where it is not UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        faults.append(Fault(name, line, f"not UTF-8: byte 0x{data[error.start]:02x}"))
        return None


def shown(value: object) -> str:
    """A wrong value in a fault: its beginning."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
