"""Platforms that name their fields their own way, read through the mappings of the city pack.

A mapping is compiled once: its paths into a type of their own, so that one typed decode of a message takes out what is
asked for and skips all else, and each field into a function that reads the platform's value.  What comes of it goes
through the very checks of a message that names its fields as we do.

Lenient where platforms are loose and nothing is lost by it: numbers and times may be texts, ids may be numbers, and
null or an empty text is nothing.  Strict otherwise: what a mapping names must be there, unless its path ends in ``?``.
A unit's path misspelt in the pack would else turn millimetres into centimetres without a word.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec

from streams.messages import MESSAGE_OF_SOURCE, Reason, SourceMessage
from streams.pack_entries import FieldPath, PlatformMapping
from streams.platform_times import TimeFormat
from streams.refusal import REFUSES, Refusal, explain_refusal, json_kind, number_fields, object_fields, shown

_MAX_NUMBER = 64
"""Characters that a number as a text may have."""


class PlatformReader:
    """Reads the messages of one platform as those of its source.

    ``platform`` of a message is the mapping's name, unless a path says it: ids need to be unique within a platform.
    ``timezone`` is the city's, for times without an offset; ``unit_of_metric`` what its rules are in.
    """

    def __init__(self, mapping: PlatformMapping, timezone: str, unit_of_metric: Mapping[str, str]) -> None:
        self._meaning = _Meaning(mapping, timezone, unit_of_metric)
        self._shape = _Shape(self._meaning.of_elements)

    def read(self, raw: bytes) -> SourceMessage | Refusal:
        """One element."""
        values = self._shape.read(raw)
        return values if isinstance(values, Refusal) else self._meaning.message(values)

    def many(self, raw: bytes) -> Sequence[SourceMessage] | None:
        """A whole array at once; None if its elements must be told apart."""
        rows = self._shape.read_array(raw)
        if rows is None:
            return None
        messages = []
        for values in rows:
            message = self._meaning.message(values)
            if isinstance(message, Refusal):
                return None
            messages.append(message)
        return messages


class EnvelopeReader:
    """Reads the records of a platform that wraps its messages: ``{"header": {…}, "data": [{…}, {…}]}``.

    Arguments as of :class:`PlatformReader`.
    """

    def __init__(self, mapping: PlatformMapping, timezone: str, unit_of_metric: Mapping[str, str]) -> None:
        assert mapping.elements is not None
        self._meaning = _Meaning(mapping, timezone, unit_of_metric)
        self._shape = _Shape(self._meaning.of_elements)
        self._array = _Place("elements", mapping.elements)
        self._around = _Shape([*self._meaning.of_envelope, self._array], list[msgspec.Raw])

    def open(self, raw: bytes) -> Envelope | Refusal:
        """The elements of a record, none of them looked into; what has no such array is refused whole."""
        values = self._around.read(raw)
        if isinstance(values, Refusal):
            return values
        elements: Any
        *said, elements = values
        if elements is None:
            return self._array.missing()
        return Envelope(elements, self._shape, self._meaning, said)


class Envelope:
    """One record's elements, and what is said around them of them all."""

    def __init__(self, elements: Sequence[msgspec.Raw], shape: _Shape, meaning: _Meaning, said: Sequence[Any]) -> None:
        self.elements = elements
        self._shape = shape
        self._meaning = meaning
        self._said = said

    def read(self, raw: bytes) -> SourceMessage | Refusal:
        """One of the elements."""
        values = self._shape.read(raw)
        return values if isinstance(values, Refusal) else self._meaning.message([*values, *self._said])


# ------------------------------------------------------------------------------------------------- what a value means


class _Unusable(Exception):  # noqa: N818  a value is, not the program
    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a platform has something: the name of ours and its path."""

    name: str
    path: FieldPath

    @property
    def shown(self) -> str:
        return f"{self.name} ({self.path})"

    def missing(self) -> Refusal:
        detail = f"nothing at {self.path}, where the platform's mapping has {self.name}"
        return Refusal(Reason.MISSING_FIELD, self.shown, detail)


class _Field(NamedTuple):
    """One path of a mapping, ready to be read."""

    name: str
    read: Callable[[Any], Any]
    """Makes ours of the platform's value."""
    within: tuple[str | int, ...]
    may_be_missing: bool
    part: int | None
    """Of an id that is made of several values which of them this is; None for all else."""
    place: _Place


class _Meaning:
    """What the values of a platform mean, as its mapping says."""

    def __init__(self, mapping: PlatformMapping, timezone: str, unit_of_metric: Mapping[str, str]) -> None:
        self._type = MESSAGE_OF_SOURCE[mapping.source]
        self._decoder = msgspec.json.Decoder(self._type)
        readings = {name: _reader(mapping, name, timezone) for name in self._type.__struct_fields__}
        fields: list[_Field] = []
        # In the order of the type, so that of several faults the one is told that it is of a message of ours.
        for name, reading in readings.items():
            paths = mapping.fields.get(name, ())
            for at, path in enumerate(paths):
                part = at if len(paths) > 1 else None
                fields.append(_Field(name, reading, path.within, path.may_be_missing, part, _Place(name, path)))
        # The values of an element come before those of its envelope.
        self._fields = sorted(fields, key=lambda field: field.place.path.in_envelope)
        self.of_elements = [field.place for field in fields if not field.place.path.in_envelope]
        self.of_envelope = [field.place for field in fields if field.place.path.in_envelope]
        self._shown = {field.name: field.place.shown for field in fields if not field.part}
        self._same = {name: constant_of(mapping, name) for name in mapping.constants}
        self._same.setdefault("platform", mapping.name)
        self._units = mapping.units
        self._unit_of_metric = unit_of_metric
        self._crs = mapping.crs

    def message(self, values: Sequence[Any]) -> SourceMessage | Refusal:
        """The message that the values, one for each field, make."""
        given = self._same.copy()
        parts: dict[int, Any] = {}
        for (name, read, within, may_be_missing, part, place), value in zip(self._fields, values, strict=True):
            try:
                said = _inside(value, within) if within else value
                if said is None or said == "":
                    if may_be_missing:
                        continue
                    return place.missing()
                meant = read(said)
            except _Unusable as error:
                return Refusal(error.reason, place.shown, error.detail)
            if part is not None:
                parts[part] = meant
            elif meant != "":
                given[name] = meant
        if parts:
            # In the mapping's order: what stands in the envelope is read last, and may come first.
            given["id"] = "-".join(parts[part] for part in sorted(parts))
        if (conversions := self._units.get(given.get("unit", ""))) is not None:
            ours = self._unit_of_metric.get(given.get("metric", ""))
            conversion = next((one for one in conversions if one.unit == ours), conversions[0])
            given["unit"] = conversion.unit
            if "value" in given:
                given["value"] = exactly(given["value"], conversion.factor, conversion.offset)
        if self._crs is not None and "lon" in given:
            given.setdefault("crs", self._crs)
        try:
            return msgspec.convert(given, self._type)
        except msgspec.ValidationError:
            refusal = explain_refusal(msgspec.json.encode(given), self._decoder)
            return refusal._replace(field=self._shown.get(refusal.field or "", refusal.field))


def constant_of(mapping: PlatformMapping, name: str) -> Any:
    """What a constant, which stands as the platform would say it, is of ours; ``ValueError`` if nothing."""
    try:
        return _reader(mapping, name, "UTC")(mapping.constants[name])
    except _Unusable as error:
        raise ValueError(error.detail) from error


def _reader(mapping: PlatformMapping, name: str, timezone: str) -> Callable[[Any], Any]:
    """What makes ours of the platform's value of a field; what it makes may still be out of the field's range."""
    if name == "time":
        return _time_reader(TimeFormat(mapping.time_format, mapping.time_zone or timezone))
    if name in number_fields(MESSAGE_OF_SOURCE[mapping.source]):
        return _number_reader(mapping.scale.get(name))
    return _text_reader(mapping.codes.get(name, {}))


def exactly(value: float, factor: float, offset: float = 0.0) -> float:
    """``value * factor + offset`` as if reckoned by hand: floats make a hair more than 15 cm of 150 mm, an alarm.

    >>> exactly(150, 0.1), 150 * 0.1
    (15.0, 15.000000000000002)
    """
    product = _BY_HAND.multiply(Decimal(repr(value)), _decimal(factor))
    return float(_BY_HAND.add(product, _decimal(offset)))


def undone(value: float, factor: float, offset: float = 0.0) -> float:
    """What `exactly` makes the value of, to one part in 1e15."""
    difference = _BY_HAND.subtract(Decimal(repr(value)), _decimal(offset))
    return float(_BY_HAND.divide(difference, _decimal(factor)))


@lru_cache(maxsize=1000)
def _decimal(number: float) -> Decimal:
    """A number of a pack as it was written there."""
    return Decimal(repr(number))


_BY_HAND = Context(prec=40)


def _time_reader(time_format: TimeFormat) -> Callable[[Any], int | str]:
    def read(value: Any) -> int | str:
        try:
            return time_format.read(value)
        except TypeError:
            raise _Unusable(Reason.WRONG_TYPE, f"a JSON {_kind(value)} is no time") from None
        except ValueError as error:
            raise _Unusable(Reason.INVALID_TIME, f"{shown(value)} is not {time_format}: {error}") from None

    return read


def _number_reader(scale: float | None) -> Callable[[Any], float]:
    def read(value: Any) -> float:
        number = _number(value)
        if scale is not None and math.isfinite(number):
            number = exactly(number, scale)
        if not math.isfinite(number):
            raise _Unusable(Reason.OUT_OF_RANGE, f"{shown(value)} is beyond all numbers")
        return number

    return read


_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)


def _number(value: Any) -> float:
    if isinstance(value, float):
        return value
    if isinstance(value, str):
        text = value.strip()
        # Python's float() would take nan, 1_000 and the digits of other scripts.
        if len(text) > _MAX_NUMBER or not _NUMBER.fullmatch(text):
            raise _Unusable(Reason.WRONG_TYPE, f"{shown(value)} is no number")
        return float(text)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _Unusable(Reason.WRONG_TYPE, f"a JSON {_kind(value)} is no number")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _text_reader(codes: Mapping[str, str]) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if isinstance(value, str):
            text = value
        elif isinstance(value, bool):
            text = "true" if value else "false"
        elif isinstance(value, int):
            text = str(value)
        else:
            raise _Unusable(Reason.WRONG_TYPE, f"a JSON {_kind(value)} is no text")
        return codes.get(text, text)

    return read


def _inside(value: Any, steps: Sequence[str | int]) -> Any:
    """What the steps lead to in an array, in a text with commas, or in what is inside of them; None for nothing."""
    for step in steps:
        if value is None:
            return None
        if isinstance(step, str):
            if not isinstance(value, dict):
                raise _Unusable(Reason.WRONG_TYPE, f"a JSON {_kind(value)} where an object with {step} is due")
            value = value.get(step)
            continue
        if not isinstance(value, str | list):
            raise _Unusable(Reason.WRONG_TYPE, f"a JSON {_kind(value)} where an array or a text with commas is due")
        parts = value.split(",") if isinstance(value, str) else value
        value = parts[step] if step < len(parts) else None
    return value


_KINDS = {dict: "object", list: "array", str: "string", bool: "boolean", int: "number", float: "number"}


def _kind(value: Any) -> str:
    return _KINDS[type(value)]


# ---------------------------------------------------------------------------------------------------- where it stands


class _Shape:
    """Takes the values at some places out of JSON objects, by one typed decode of nothing else.

    ``last`` is the type of the last one.  No place may lie inside what another one has as its value.
    """

    def __init__(self, places: Sequence[_Place], last: Any = Any) -> None:
        self._places = places
        self._types = [*[Any] * (len(places) - 1), last]
        tree: dict[str, Any] = {}
        for place, kind in zip(places, self._types, strict=True):
            part = tree
            for key in place.path.keys[:-1]:
                part = part.setdefault(key, {})
            part[place.path.keys[-1]] = kind
        made = _struct_of(tree)
        self._one = msgspec.json.Decoder(made)
        self._many = msgspec.json.Decoder(list[made])  # type: ignore[valid-type]
        attributes = [_attribute(tree, place.path.keys) for place in places]
        # The last one twice, for of a single name attrgetter makes no tuple.
        self._all = attrgetter(*attributes, attributes[-1])
        self._each = [attrgetter(attribute) for attribute in attributes]

    def read(self, raw: bytes) -> Sequence[Any] | Refusal:
        """The value of each place, None where it is null or not there; the reason if ``raw`` is no such object."""
        try:
            return self._values(self._one.decode(raw))
        except REFUSES:
            return self._look(raw)

    def read_array(self, raw: bytes) -> list[Sequence[Any]] | None:
        """The same of each element of an array; None if any of them is refused."""
        try:
            return [self._values(part) for part in self._many.decode(raw)]
        except REFUSES:
            return None

    def _values(self, part: Any) -> Sequence[Any]:
        try:
            values: tuple[Any, ...] = self._all(part)
        except AttributeError:
            return [_value(part, get) for get in self._each]
        return values[:-1]

    def _look(self, raw: bytes) -> Sequence[Any] | Refusal:
        """What `read` means, the slow way, which also tells what is wrong."""
        whole = object_fields(raw)
        if isinstance(whole, Refusal):
            return whole
        values = []
        for place, kind in zip(self._places, self._types, strict=True):
            part: dict[str, msgspec.Raw] = whole
            for key in place.path.keys[:-1]:
                inner = bytes(part.get(key, _NULL))
                found = {} if json_kind(inner) == "null" else object_fields(inner)
                if isinstance(found, Refusal):
                    reason = Reason.WRONG_TYPE if found.reason is Reason.NOT_AN_OBJECT else found.reason
                    return Refusal(reason, place.shown, f"{key}: {found.detail}")
                part = found
            try:
                values.append(msgspec.json.decode(part.get(place.path.keys[-1], _NULL), type=kind | None))
            except msgspec.ValidationError as error:
                # Of what may be anything only a number beyond all numbers is wrong.
                reason = Reason.OUT_OF_RANGE if kind is Any else Reason.WRONG_TYPE
                return Refusal(reason, place.shown, str(error))
            except REFUSES as error:
                return Refusal(Reason.MALFORMED_JSON, place.shown, str(error))
        return values


_NULL = msgspec.Raw(b"null")


def _struct_of(tree: Mapping[str, Any]) -> type[msgspec.Struct]:
    """A type with a field for each key, all optional; ``tree`` has the type of a value, or the tree inside."""
    names = {f"f{number}": key for number, key in enumerate(tree)}
    fields: list[tuple[str, Any, Any]] = []
    for name, inside in zip(names, tree.values(), strict=True):
        if isinstance(inside, dict):
            made = _struct_of(inside)
            # One that has nothing where there is none, so that only null breaks the chain of attributes.
            fields.append((name, made | None, made()))
        else:
            fields.append((name, inside | None, None))
    return msgspec.defstruct("Part", fields, rename=names, frozen=True, gc=False)


def _attribute(tree: Mapping[str, Any], keys: Sequence[str]) -> str:
    """The attribute that a key's value is in the type that `_struct_of` makes of the tree."""
    names = []
    for key in keys:
        names.append(f"f{list(tree).index(key)}")
        tree = tree[key]
    return ".".join(names)


def _value(part: Any, get: Callable[[Any], Any]) -> Any:
    try:
        return get(part)
    except AttributeError:  # null where there may be an object
        return None
