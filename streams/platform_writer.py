"""Says messages as a platform would, the inverse of reading them: for simulations and tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from geo.datum import from_wgs84, to_wgs84
from streams.messages import MESSAGE_OF_SOURCE, platform_topic
from streams.pack import CityPack
from streams.pack_entries import FieldPath
from streams.platform_times import TimeFormat
from streams.platforms import constant_of, undone
from streams.refusal import number_fields

_Way = str | int | float


class PlatformWriter:
    """Writes messages of a source, dicts of our fields with `time` in Unix ms, as a platform of the pack says them.

    Read back by :mod:`streams.platforms` a message is the same but for this: its `platform` is the platform's; its
    `crs` is the platform's, with the position moved to it (to 1e-7 degree); `time` is rounded down to what the format
    can say, numbers to one part in 1e15; what the platform has no place for is gone, what it always says is there; an
    `id` that the platform makes of other fields is made of them.  A local time that comes twice is taken for the first.

    ``KeyError`` if the pack has no such platform.
    """

    def __init__(self, pack: CityPack, name: str) -> None:
        self._mapping = pack.platforms[name]
        self._crs_of_source = pack.sources[self._mapping.source].crs
        self._time_format = TimeFormat(self._mapping.time_format, self._mapping.time_zone or pack.timezone)
        self._numbers = number_fields(MESSAGE_OF_SOURCE[self._mapping.source])

    @property
    def topic(self) -> str:
        """The platform's own topic; on its source's it needs the header `platform` with its name."""
        return platform_topic(self._mapping.source, self._mapping.name)

    def write(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON object of one message, in an envelope if the platform uses them.

        Raises ``ValueError`` if the platform cannot say it: it lacks what the platform always says, or has a value
        that would be read as another one.
        """
        element, around = self._parts(message)
        return element if self._mapping.elements is None else self._wrapped([element], around)

    def write_batch(self, messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]] | dict[str, Any]:
        """The JSON value of several messages in one record: an array, or one envelope.

        Raises ``ValueError`` as `write`, for no message in an envelope, and if two of them need different envelopes.
        """
        parts = [self._parts(message) for message in messages]
        elements = [element for element, _ in parts]
        if self._mapping.elements is None:
            return elements
        around = parts[0][1] if parts else {}
        if not parts or any(other != around for _, other in parts):
            raise ValueError("one envelope cannot say this of all of its messages")
        return self._wrapped(elements, around)

    def _wrapped(self, elements: list[dict[str, Any]], around: dict[str, Any]) -> dict[str, Any]:
        assert self._mapping.elements is not None
        _put(around, self._mapping.elements.steps, elements)
        return around

    def _parts(self, message: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """An element, and what stands around it."""
        given = self._in_datum({name: value for name, value in message.items() if value is not None and value != ""})
        chosen = self._chosen({name: self._ways(name, given) for name in self._mapping.fields if name != "value"})
        if "value" in self._mapping.fields and "value" in given:
            unit = self._mapping.fields.get("unit")
            word = self._mapping.constants.get("unit") if unit is None else chosen.get(_place(unit[0]))
            chosen[_place(self._mapping.fields["value"][0])] = self._value(given, word)
        self._require_constants(given)
        element: dict[str, Any] = {}
        around: dict[str, Any] = {}
        for name, paths in self._mapping.fields.items():
            for path in paths:
                way = chosen.get(_place(path))
                if way is not None:
                    _put(around if path.in_envelope else element, path.steps, way)
                elif not path.may_be_missing:
                    raise ValueError(f"{self._mapping.name} always says {name}, at {path}, and the message does not")
        return element, around

    def _chosen(self, ways: Mapping[str, Sequence[_Way]]) -> dict[object, _Way]:
        """For each place the first way of saying that serves all the fields that are read from it."""
        serving: dict[object, list[_Way]] = {}
        for name, those in ways.items():
            path, *others = self._mapping.fields[name]
            if others or not those:
                continue  # an id of several parts is made of what other fields say
            before = serving.get(_place(path), those)
            serving[_place(path)] = [way for way in before if way in those]
            if not serving[_place(path)]:
                raise ValueError(f"{self._mapping.name} cannot say this {name} beside what else is at {path}")
        return {place: those[0] for place, those in serving.items()}

    def _ways(self, name: str, given: Mapping[str, Any]) -> list[_Way]:
        """Whatever is read as a field's value; empty where the message has none."""
        if name not in given:
            return []
        value = given[name]
        if name == "time":
            return [self._time_format.write(value)]
        if name in self._numbers:
            return [_short(undone(value, self._mapping.scale.get(name, 1.0)))]
        if name == "unit":
            meanings = {word: [one.unit for one in those] for word, those in self._mapping.units.items()}
        else:
            meanings = {code: [word] for code, word in self._mapping.codes.get(name, {}).items()}
        ways: list[_Way] = [word for word, those in meanings.items() if value in those]
        if value not in meanings:
            ways.append(value)
        if not ways:
            raise ValueError(f"{self._mapping.name} means {' or '.join(meanings[value])} by the {name} {value!r}")
        return ways

    def _value(self, given: Mapping[str, Any], word: object) -> _Way:
        if word not in self._mapping.units:
            return _short(given["value"])
        for conversion in self._mapping.units[str(word)]:
            if conversion.unit == given.get("unit"):
                return _short(undone(given["value"], conversion.factor, conversion.offset))
        raise ValueError(f"{self._mapping.name} says values in {word}, the message in {given.get('unit')}")

    def _require_constants(self, given: Mapping[str, Any]) -> None:
        for name in self._mapping.constants:
            always = constant_of(self._mapping, name)
            if given.get(name, always) != always and (name != "unit" or always not in self._mapping.units):
                raise ValueError(f"{self._mapping.name} always means {always!r} as {name}, the message {given[name]!r}")

    def _in_datum(self, given: dict[str, Any]) -> dict[str, Any]:
        """The message with its position in the platform's datum."""
        crs = given.get("crs", self._crs_of_source)
        if "crs" not in self._mapping.fields:
            its = self._mapping.crs or self._crs_of_source
            if "lon" in given and crs != its:
                lon, lat = from_wgs84(*to_wgs84(given["lon"], given["lat"], crs), its)
                given = {**given, "lon": round(float(lon), 7), "lat": round(float(lat), 7)}
            crs = its
        return {**given, "crs": crs}


def _place(path: FieldPath) -> object:
    return path.in_envelope, path.steps


def _short(number: float) -> int | float:
    """87 rather than 87.0, as most would write it."""
    return int(number) if float(number).is_integer() else number


def _put(whole: dict[str, Any], steps: Sequence[str | int], value: Any) -> None:
    """Put a value where the steps lead, making the objects and arrays on the way."""
    part: Any = whole
    for at, step in enumerate(steps):
        if isinstance(step, int):
            part.extend([None] * (step + 1 - len(part)))
        if at == len(steps) - 1:
            part[step] = value
            return
        if (part.get(step) if isinstance(step, str) else part[step]) is None:
            part[step] = [] if isinstance(steps[at + 1], int) else {}
        part = part[step]
