"""Reads the ``[platform.<name>]`` tables of a city pack and names every fault with its line.

```toml
[platform.huaxin]
source = "iot"
time_format = "unix_s"       # rfc3339 unless it says so: unix_s, unix_ms, or a strptime format as "%Y-%m-%d %H:%M:%S"
time_zone = "Asia/Shanghai"  # of times without an offset; the city's unless it says so
crs = "gcj02"                # of positions; the source's unless it says so
elements = "data"            # the array of messages, where each record is an envelope around one

[platform.huaxin.fields]     # our field = where theirs is
id = "msgId"
time = "head.ts"             # keys from outside in
lon = "head.gps[0]"          # of an array, or of a text with commas
device_id = "^gateway.code"  # from the envelope
alarm = "alarm.code?"        # may be missing; without ? that is a dead letter

[platform.huaxin.constants]  # our field = what they would always say
unit = "mm"
[platform.huaxin.scale]      # our field = what their number is multiplied by
accuracy_m = 0.01
[platform.huaxin.units]      # their word for a unit: ours = theirs * factor + offset
kPa = { unit = "MPa", factor = 0.001 }
mm = [{ unit = "cm", factor = 0.1 }, { unit = "m", factor = 0.001 }]  # whichever the metric's rules are in
[platform.huaxin.codes.alarm]  # their code = our word, "" for one that says nothing
17 = "gas_leak"
```

A code or a unit that is not in its table stays as it is.  An `id` may be a list of paths, whose values are joined by
``-``, for platforms whose messages have none of their own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import NamedTuple

import msgspec

from geo.datum import CRS
from streams.messages import LABEL_FIELD, MESSAGE_OF_SOURCE, SOURCES
from streams.pack_entries import Category, FieldPath, PlatformMapping, Rule, SourceEntry, UnitConversion
from streams.platform_times import NAMED_FORMATS, RFC3339, is_time_format, is_time_zone, says_offset
from streams.platforms import constant_of
from streams.refusal import number_fields
from streams.toml_tables import TomlTable, shown

# It ends a topic's name, where only these signs are legal; what a dot would part is another platform.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_UNIT = re.compile(r".{1,32}")
_NOT_CONSTANT = {
    "id": "every message would be a repeat of the first",
    "time": "every message would be of one moment",
    "crs": "write crs = … in the platform's own table",
    "platform": "it is the platform's name unless a path says another",
}
_NO_CODES = {
    "id": "an id means only itself",
    "time": "time_format says how times are written",
    "unit": "[units] says what a platform's units are in ours",
}
_PAIRS = (
    ("lon", "lat"),
    ("lat", "lon"),
    ("metric", "value"),
    ("value", "metric"),
    ("unit", "value"),
    ("state", "alarm"),
)
"""What means nothing without the other."""
_WORDS = {"state": ("raised", "cleared"), "crs": CRS}
"""Fields of ours that know only these words."""


class Catalogue(NamedTuple):
    """What a mapping may lead to."""

    categories: Sequence[Category]
    rules: Sequence[Rule]


def read_platforms(
    root: TomlTable, sources: Mapping[str, SourceEntry], catalogue: Catalogue | None
) -> dict[str, PlatformMapping]:
    """The mappings of ``city.toml``, by name; those with a fault are left out.

    Without a ``catalogue``, for it has faults of its own, nothing is compared with it.
    """
    found: dict[str, PlatformMapping] = {}
    tables = root.table("platform")
    if tables is None:
        return {}
    for name in tables.values:
        table = tables.table(name)
        if table is None:
            continue
        if not _NAME.fullmatch(name):
            table.fault(None, f"platform name {shown(name)} must match {_NAME.pattern}, for it ends a topic's name")
        source = table.choice("source", None, SOURCES, required=True)
        if source is not None:
            mapping = _Platform(table, name, sources[source], catalogue).mapping()
            if mapping is not None:
                found[name] = mapping
    return found


class _Platform:
    """One ``[platform.<name>]`` under examination."""

    def __init__(self, table: TomlTable, name: str, source: SourceEntry, catalogue: Catalogue | None) -> None:
        self.table = table
        self.name = name
        self.source = source
        self.catalogue = catalogue
        self.types = {field.name: field for field in msgspec.structs.fields(MESSAGE_OF_SOURCE[source.name])}
        self.numbers = number_fields(MESSAGE_OF_SOURCE[source.name])
        self.examined = [table]
        self.inner: dict[str, TomlTable] = {}

    def mapping(self) -> PlatformMapping | None:
        """The mapping, None if there is a fault in it."""
        table = self.table
        time_format = table.text("time_format", RFC3339)
        time_zone = table.text("time_zone")
        crs = table.choice("crs", None, CRS)
        assert time_format is not None
        if not is_time_format(time_format):
            names = ", ".join(NAMED_FORMATS)
            table.fault(
                "time_format",
                f"time_format = {shown(time_format)} must be one of {names}, or a strptime format that says date, "
                "hour and minute, as %Y-%m-%d %H:%M:%S",
            )
        if time_zone is not None and not is_time_zone(time_zone):
            table.fault("time_zone", f"time_zone = {shown(time_zone)} is not in the IANA time zone database")
        elif time_zone is not None and says_offset(time_format):
            table.fault("time_zone", f"time_zone has no effect: times in {time_format} need none", "warning")
        elements = self._elements()
        fields = self._fields(elements)
        mapping = PlatformMapping(
            name=self.name,
            source=self.source.name,
            elements=elements,
            crs=crs,
            time_format=time_format,
            time_zone=time_zone,
            fields=fields,
            constants=self._constants(),
            scale=self._scale(),
            units=self._units(),
            codes=self._codes(),
        )
        table.warn_of_unknown_keys()
        for require in (self._require_what_is_needed, self._require_legal_constants):
            if all(examined.sound for examined in self.examined):
                require(mapping)
        return mapping if all(examined.sound for examined in self.examined) else None

    def _inner(self, key: str) -> TomlTable:
        """A table of this platform, empty where it is not there."""
        table = self.table.table(key) or TomlTable(self.table.file, (*self.table.path, key), {})
        self.inner[key] = table
        self.examined.append(table)
        return table

    def _elements(self) -> FieldPath | None:
        text = self.table.text("elements")
        if text is None:
            return None
        path = self._path(self.table, "elements", text)
        if path is not None and (path.in_envelope or path.may_be_missing or path.within):
            self.table.fault("elements", f"elements = {shown(text)} must be plain keys, as data.list")
        return path

    def _path(self, table: TomlTable, key: str, text: str) -> FieldPath | None:
        try:
            return FieldPath.parse(text)
        except ValueError:
            table.fault(
                key,
                f"{key} = {shown(text)} must be a path as payload.gps[0]: keys with dots between (in double quotes "
                "where one holds a blank or any of . [ ] ? ^), [n] for an element; ^ before it: of the envelope; "
                "? after it: may be missing",
            )
            return None

    def _fields(self, elements: FieldPath | None) -> dict[str, tuple[FieldPath, ...]]:
        table = self._inner("fields")
        if "fields" not in self.table.values:
            self.table.fault(None, "fields is missing: it says where the platform has what")
        fields: dict[str, tuple[FieldPath, ...]] = {}
        for name, said in table.values.items():
            texts = said if name == "id" and isinstance(said, list) else [said]
            if not self._is_ours(table, name):
                continue
            if not texts or not all(isinstance(text, str) for text in texts):
                table.fault(name, f"{name} = {shown(said)} must be a path, as payload.gps[0]")
                continue
            paths = [path for text in texts if (path := self._path(table, name, text)) is not None]
            for path in paths:
                if path.in_envelope and "elements" not in self.table.values:
                    table.fault(name, f"{name} = {shown(path.text)}: there is no envelope without elements")
                if path.may_be_missing and self.types[name].required:
                    table.fault(name, f"{name} = {shown(path.text + '?')} must not end in ?: {self._every} needs it")
            if len(paths) == len(texts):
                fields[name] = tuple(paths)
        if table.sound and all(path.in_envelope for path in fields.get("id", ())) and "id" in fields:
            table.fault("id", "all messages of an envelope would have one id: part of it must be in the element")
        if table.sound:
            self._require_apart(table, fields, elements)
        return fields

    def _is_ours(self, table: TomlTable, name: str) -> bool:
        if name in self.types:
            return True
        table.fault(name, f"{name} is no field of {self._every}; it has {', '.join(self.types)}")
        return False

    @property
    def _every(self) -> str:
        return f"a message of {self.source.name}"

    def _require_apart(
        self, table: TomlTable, fields: Mapping[str, Sequence[FieldPath]], elements: FieldPath | None
    ) -> None:
        """What is one value holds no other; and two fields that must differ are not one value."""
        placed = [(name, path) for name, paths in fields.items() for path in paths]
        if elements is not None:
            placed.insert(0, ("elements", replace(elements, in_envelope=True)))
        for (one, path), (other, its) in combinations(placed, 2):
            if path.in_envelope != its.in_envelope:
                continue
            shorter, longer = sorted((path.keys, its.keys), key=len)
            if longer[: len(shorter)] == shorter and (len(shorter) < len(longer) or one == "elements"):
                table.fault(other, f"{other} and {one} contradict: {its} and {path} cannot both have something")
                continue
            is_all_of_an_id = "id" in (one, other) and len(fields["id"]) == 1
            if path.steps == its.steps and (is_all_of_an_id or {one, other} == {"lon", "lat"}):
                table.fault(other, f"{one} and {other} are both read from {its}")

    def _constants(self) -> dict[str, str | float]:
        table = self._inner("constants")
        constants: dict[str, str | float] = {}
        for name, value in table.values.items():
            if not self._is_ours(table, name):
                continue
            if name in _NOT_CONSTANT:
                table.fault(name, f"{name} cannot be a constant: {_NOT_CONSTANT[name]}")
            elif name in self.inner["fields"].values:
                table.fault(name, f"{name} is both a constant and read from a path")
            elif isinstance(value, bool) or not isinstance(value, str | int | float):
                table.fault(name, f"{name} = {shown(value)} must be a text or a number")
            else:
                constants[name] = value
        return constants

    def _scale(self) -> dict[str, float]:
        table = self._inner("scale")
        scale: dict[str, float] = {}
        for name in table.values:
            if not self._is_ours(table, name):
                continue
            factor = _factor(table, name, None)
            if name not in self.numbers:
                table.fault(name, f"{name} is no number; those of {self._every} are {', '.join(sorted(self.numbers))}")
            elif name == "value":
                table.fault(name, "value is converted by its unit: write [units], and constants.unit if none is sent")
            elif name not in self.inner["fields"].values:
                table.fault(name, f"{name} is scaled and not read from anywhere")
            elif factor is not None:
                scale[name] = factor
        return scale

    def _units(self) -> dict[str, tuple[UnitConversion, ...]]:
        table = self._inner("units")
        if table.values and "unit" not in self.types:
            self.table.fault("units", f"{self._every} has no unit")
        units: dict[str, tuple[UnitConversion, ...]] = {}
        for word, said in table.values.items():
            entries = list(table.tables(word)) if isinstance(said, list) else [table.table(word)]
            conversions = [self._conversion(entry) for entry in entries if entry is not None]
            units[word] = tuple(one for one in conversions if one is not None)
            if not entries:
                table.fault(word, f"{word} = [] says nothing of what it is in ours")
            elif len({one.unit for one in units[word]}) < len(units[word]):
                table.fault(word, f"{word} is one of our units in two ways")
        return units

    def _conversion(self, table: TomlTable) -> UnitConversion | None:
        self.examined.append(table)
        unit = table.text("unit", required=True, pattern=_UNIT)
        factor = _factor(table, "factor", 1.0)
        offset = table.number("offset", 0.0, -math.inf, math.inf)
        table.warn_of_unknown_keys()
        if unit is None or factor is None or offset is None:
            return None
        if self.catalogue is not None and unit not in {rule.unit for rule in self.catalogue.rules}:
            table.fault("unit", f"unit = {shown(unit)}: no rule is in it", "warning")
        return UnitConversion(unit, factor, offset)

    def _codes(self) -> dict[str, dict[str, str]]:
        table = self._inner("codes")
        codes: dict[str, dict[str, str]] = {}
        for name in table.values:
            entry = table.table(name) if self._is_ours(table, name) else None
            if entry is None:
                continue
            self.examined.append(entry)
            if name in self.numbers or name in _NO_CODES:
                entry.fault(None, f"{name} has no codes: {_NO_CODES.get(name, 'it is a number')}")
                continue
            for code, word in entry.values.items():
                if not isinstance(word, str):
                    entry.fault(code, f"{code} = {shown(word)} must be our word for it, a text")
                elif word == "" and self.types[name].required:
                    entry.fault(code, f'{code} = "" says nothing, and {self._every} needs {name}')
                elif word != "":
                    self._require_meaning(entry, name, code, word)
            codes[name] = {code: word for code, word in entry.values.items() if isinstance(word, str)}
        return codes

    def _require_meaning(self, table: TomlTable, name: str, key: str, word: str) -> None:
        """A word that the field, or for a label the catalogue, knows."""
        catalogue = self.catalogue
        try:
            msgspec.convert(word, self.types[name].type)
        except msgspec.ValidationError as error:
            table.fault(key, f"{key} = {shown(word)} is no {name}: {error}")
            return
        if name in _WORDS and word not in _WORDS[name]:
            table.fault(key, f"{key} = {shown(word)} must be one of {', '.join(_WORDS[name])}")
        elif catalogue is None:
            return
        elif name == "metric" and word not in {rule.metric for rule in catalogue.rules}:
            table.fault(key, f"{key} = {shown(word)}: no rule judges it", "warning")
        elif name == LABEL_FIELD[self.source.name] and not any(
            word == category.code or word in category.labels.get(self.source.name, ())
            for category in catalogue.categories
        ):
            message = f"{key} = {shown(word)} is no label of {self.source.name} in the catalogue and no category's code"
            # Where unknown labels are taken, it may be meant.
            table.fault(key, message, "fault" if self.source.fallback_category is None else "warning")

    def _require_what_is_needed(self, mapping: PlatformMapping) -> None:
        """What the source's messages need is there, and what means something only beside something else has that."""
        given = {**mapping.fields, **mapping.constants}
        for name, field in self.types.items():
            if field.required and name not in given:
                self.table.fault("fields", f"{name} is neither in fields nor in constants: {self._every} needs it")
        missing: set[str] = set()
        for name, other in _PAIRS:
            if name in given and other not in given and other not in missing:
                missing.add(other)
                self._blame(name, mapping, f"{name} without {other}, which is neither in fields nor in constants")
        for name in mapping.codes:
            if name not in given:
                self.table.fault("codes", f"codes of {name}, which is neither in fields nor in constants")
        if mapping.units and "unit" not in given:
            self.table.fault("units", "units, and unit is neither in fields nor in constants")
        if self.source.name != "iot":
            return
        if "alarm" not in given and "metric" not in given:
            message = (
                f"neither alarm nor metric and value are in fields or in constants: {self._every} needs one of them"
            )
            self.table.fault("fields", message)
        elif "alarm" in given and "metric" in given:
            path = mapping.fields.get("alarm")
            is_silent = "" in mapping.codes.get("alarm", {}).values()
            if path is None or not (path[0].may_be_missing or is_silent):
                message = (
                    "alarm and metric contradict: a message with an alarm is no reading, and all of these have one; "
                    'end its path in ?, or name the code of none in codes.alarm with ""'
                )
                self._blame("alarm", mapping, message)

    def _require_legal_constants(self, mapping: PlatformMapping) -> None:
        table = self.inner["constants"]
        for name, said in mapping.constants.items():
            try:
                meant = msgspec.convert(constant_of(mapping, name), self.types[name].type)
            except (ValueError, msgspec.ValidationError) as error:
                table.fault(name, f"{name} = {shown(said)}: {error}")
                continue
            if isinstance(meant, str) and name not in mapping.codes:
                self._require_meaning(table, name, name, meant)

    def _blame(self, name: str, mapping: PlatformMapping, message: str) -> None:
        """Note a fault where a field is mapped, or else where it is a constant."""
        self.inner["fields" if name in mapping.fields else "constants"].fault(name, message)


def _factor(table: TomlTable, key: str, default: float | None) -> float | None:
    """A number that things are multiplied by, which makes 0 as wrong as none."""
    factor = table.number(key, default, -math.inf, math.inf)
    if factor == 0:
        table.fault(key, f"{key} = 0 must be a number other than 0")
        return None
    return factor
