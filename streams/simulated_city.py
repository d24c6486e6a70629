"""The city of a simulation: where things can happen, what each source calls them, which devices are there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from geo.plane import distance_m, metres_per_degree
from streams.messages import SOURCES
from streams.pack import Category, CityPack, Device
from streams.simulated_chance import Chance


class SimulatedCity:
    """A pack, looked up the way a simulation needs it.

    ``senses`` says which categories each kind of device notices (``any``: every kind of sensor); those that the pack
    does not have, or that have no label for sensors, are left out.
    """

    def __init__(self, pack: CityPack, senses: Mapping[str, Sequence[str]]) -> None:
        self.pack = pack
        self.by_code: dict[str, Category] = {category.code: category for category in pack.categories}
        self.labels: dict[str, dict[str, tuple[str, ...]]] = {
            source: {c.code: c.labels[source] for c in pack.categories if c.labels.get(source)} for source in SOURCES
        }
        self.in_group: defaultdict[str, list[str]] = defaultdict(list)
        for category in pack.categories:
            if category.event:
                self.in_group[category.group].append(category.code)
        devices = self._inside(sorted(pack.devices.values(), key=lambda device: device.id))
        self.cameras = [device for device in devices if device.kind == "camera"]
        self.sensors = [device for device in devices if device.kind != "camera"]
        self.senses: dict[str, tuple[str, ...]] = {}
        self.sensors_of: defaultdict[str, list[Device]] = defaultdict(list)
        for sensor in self.sensors:
            codes = [*senses.get(sensor.kind, []), *senses.get("any", [])]
            self.senses[sensor.kind] = tuple(code for code in codes if self.labels["iot"].get(code))
            for code in self.senses[sensor.kind]:
                self.sensors_of[code].append(sensor)
        self._uniform: list[tuple[float, float]] = []

    def _inside(self, devices: list[Device]) -> list[Device]:
        """What is registered outside the city could only send dead letters."""
        if not devices:
            return []
        inside = self.pack.grid.locate([d.lon for d in devices], [d.lat for d in devices]) >= 0
        return [device for device, here in zip(devices, inside.tolist(), strict=True) if here]

    def contains(self, lon: float, lat: float) -> bool:
        """Whether a point (degrees, WGS-84) lies in the city."""
        return bool(self.pack.grid.locate([lon], [lat])[0] >= 0)

    def anywhere(self, chance: Chance) -> tuple[float, float]:
        """A point of the city, all of it equally likely; degrees, WGS-84."""
        west, south, east, north = self.pack.grid.bounds
        while not self._uniform:
            lon, lat = chance.rng.uniform(west, east, 1024), chance.rng.uniform(south, north, 1024)
            inside = np.flatnonzero(self.pack.grid.locate(lon, lat) >= 0)
            self._uniform = list(zip(lon[inside].tolist(), lat[inside].tolist(), strict=True))
        return self._uniform.pop()

    def cells_around(self, lon: float, lat: float) -> list[int]:
        """The cells that hold a point, innermost first."""
        cells: list[int] = []
        cell = int(self.pack.grid.locate([lon], [lat])[0])
        while cell >= 0:
            cells.append(cell)
            cell = int(self.pack.grid.parent[cell])
        return cells


def moved(lon: float, lat: float, east_m: float, north_m: float) -> tuple[float, float]:
    """The point so many metres east and north of another."""
    m_lon, m_lat = metres_per_degree(lat)
    return lon + east_m / float(m_lon), lat + north_m / float(m_lat)


def metres(lon1: float, lat1: float, lon2: float, lat2: float) -> float:
    """How far two points lie apart."""
    return float(distance_m(lon1, lat1, lon2, lat2))


def within(devices: Sequence[Device], lon: float, lat: float, reach_m: float) -> list[Device]:
    """The devices at most ``reach_m`` from a point, in their order."""
    if not devices:
        return []
    away_m = distance_m(lon, lat, [d.lon for d in devices], [d.lat for d in devices])
    return [devices[at] for at in np.flatnonzero(away_m <= reach_m).tolist()]


def known(codes: Iterable[str], by_code: Mapping[str, Category]) -> list[str]:
    """Those of the codes that the pack has as events."""
    return [code for code in codes if code in by_code and by_code[code].event]
