"""GeoJSON features with the line each one starts on, so that a fault can be shown to the person who must mend it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely

_SPACE = " \t\r\n"
_FARTHEST = np.array([180.0, 90.0])


class FeatureError(ValueError):
    """A text is no GeoJSON FeatureCollection, or a geometry no polygon; `line` says where, None if unknown."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True)
class Feature:
    """One feature as it stands in the file: nothing is checked beyond its being a JSON object."""

    line: int
    properties: Mapping[str, Any]
    geometry: Mapping[str, Any] | None


def _refuse_constant(name: str) -> float:
    raise FeatureError(f"{name} is not a JSON number")


class _Reader:
    """Walks the outermost object by hand, because the json module does not tell where an element stood."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.decoder = json.JSONDecoder(parse_constant=_refuse_constant)

    def line(self, at: int) -> int:
        return self.text.count("\n", 0, at) + 1

    def fail(self, message: str) -> FeatureError:
        return FeatureError(message, self.line(self.at))

    def peek(self) -> str:
        while self.at < len(self.text) and self.text[self.at] in _SPACE:
            self.at += 1
        return self.text[self.at : self.at + 1]

    def expect(self, wanted: str) -> None:
        if self.peek() != wanted:
            raise self.fail(f"invalid JSON: expected {wanted!r}, found {self.peek()!r}")
        self.at += 1

    def value(self) -> Any:
        self.peek()
        try:
            value, self.at = self.decoder.raw_decode(self.text, self.at)
        except json.JSONDecodeError as error:
            raise FeatureError(f"invalid JSON: {error.msg}", error.lineno) from error
        except FeatureError as error:
            raise self.fail(str(error)) from error
        except RecursionError as error:
            raise self.fail("invalid JSON: nested too deeply") from error
        return value

    def key(self) -> str:
        if self.peek() != '"':
            raise self.fail(f"invalid JSON: expected a key, found {self.peek()!r}")
        name = self.value()
        self.expect(":")
        return str(name)

    def features(self) -> list[Feature]:
        found: list[Feature] = []
        self.expect("[")
        if self.peek() == "]":
            self.at += 1
            return found
        line, counted = 1, 0
        while True:
            self.peek()
            line += self.text.count("\n", counted, self.at)
            counted = self.at
            value = self.value()
            if not isinstance(value, dict):
                raise FeatureError("a feature must be a JSON object", line)
            properties, geometry = value.get("properties"), value.get("geometry")
            if properties is not None and not isinstance(properties, dict):
                raise FeatureError("a feature's properties must be a JSON object", line)
            if geometry is not None and not isinstance(geometry, dict):
                raise FeatureError("a feature's geometry must be a JSON object", line)
            found.append(Feature(line, properties or {}, geometry))
            if self.peek() == "]":
                self.at += 1
                return found
            self.expect(",")

    def collection(self) -> list[Feature]:
        if self.peek() != "{":
            raise self.fail("a GeoJSON file must be one JSON object, a FeatureCollection")
        self.at += 1
        kind: object = None
        found: list[Feature] | None = None
        while self.peek() != "}":
            name = self.key()
            if name == "features" and self.peek() == "[":
                found = self.features()
            else:
                value = self.value()
                kind = value if name == "type" else kind
            if self.peek() != "}":
                self.expect(",")
                if self.peek() == "}":
                    raise self.fail("invalid JSON: a comma before the closing brace")
        self.at += 1
        if self.peek():
            raise self.fail("invalid JSON: text after the closing brace")
        if kind != "FeatureCollection" or found is None:
            raise FeatureError('the file must hold {"type": "FeatureCollection", "features": [...]}', 1)
        return found


def read_features(data: bytes) -> list[Feature]:
    """Read a FeatureCollection, with the line of each feature.

    Raises
    ------
    FeatureError
        If the text is not UTF-8, not JSON, or not a FeatureCollection; with the line of the first fault.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FeatureError(f"not UTF-8: byte 0x{data[error.start]:02x}", line) from error
    return _Reader(text).collection()


def _ring(ring: object) -> Any:
    try:
        points = np.array(ring, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise FeatureError("a ring must be a list of [lon, lat] numbers") from error
    if points.ndim != 2 or points.shape[1] < 2:
        raise FeatureError("a ring must be a list of [lon, lat] numbers")
    points = points[:, :2]
    if len(points) < 4 or points[0].tolist() != points[-1].tolist():
        raise FeatureError(f"a ring must be closed and have at least 4 positions, this one has {len(points)}")
    legal = np.abs(points) <= _FARTHEST
    if not legal.all():
        lon, lat = points[int(np.argmin(legal.all(axis=1)))]
        raise FeatureError(f"position [{lon!s}, {lat!s}] is outside lon ±180, lat ±90")
    return points


def _polygon(rings: object) -> Any:
    if not isinstance(rings, list) or not rings:
        raise FeatureError("a polygon must be a list of rings, the outer one first")
    shell, *holes = (_ring(ring) for ring in rings)
    return shapely.Polygon(shell, holes)


def polygon_of(geometry: Mapping[str, Any] | None) -> Any:
    """Turn a GeoJSON geometry into a shapely Polygon or MultiPolygon; whether it is *valid* is not asked.

    Raises
    ------
    FeatureError
        If it is neither kind, a ring is open or too short, or a position is no number or out of range.
    """
    if geometry is None:
        raise FeatureError("the feature has no geometry")
    kind, coordinates = geometry.get("type"), geometry.get("coordinates")
    if kind == "Polygon":
        return _polygon(coordinates)
    if kind == "MultiPolygon":
        if not isinstance(coordinates, list) or not coordinates:
            raise FeatureError("a MultiPolygon must be a list of polygons")
        return shapely.MultiPolygon([_polygon(rings) for rings in coordinates])
    raise FeatureError(f"the geometry must be a Polygon or MultiPolygon, not {kind!r}")
