"""The city pack: a city's grid, catalogue, devices and places as one frozen object (docs/contract.md).

A pack is known by a hash of its content, so two services that show the same `version` decide alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path

from geo.grid import Grid
from streams.messages import platform_topic
from streams.pack_check import examine_pack
from streams.pack_entries import (
    PACK_FILES,
    Category,
    Device,
    Fault,
    Place,
    Places,
    PlatformMapping,
    Related,
    Rule,
    Sla,
    SourceEntry,
)

__all__ = [
    "Category",
    "CityPack",
    "Device",
    "Fault",
    "PackError",
    "Place",
    "Places",
    "Related",
    "Rule",
    "Sla",
    "SourceEntry",
    "load_pack",
    "parse_pack",
    "read_pack_files",
]

_FAULTS_SHOWN = 20


class PackError(ValueError):
    """A pack cannot be used; `faults` says why, each with file and line."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = list(faults)
        lines = [str(fault) for fault in self.faults[:_FAULTS_SHOWN]]
        if len(self.faults) > _FAULTS_SHOWN:
            lines.append(f"and {len(self.faults) - _FAULTS_SHOWN} more; `citybrain check-city` lists them all")
        super().__init__("\n".join(lines))


@dataclass(frozen=True, eq=False)
class CityPack:
    """Everything the service knows about a city."""

    name: str
    code: str
    timezone: str
    levels: tuple[str, ...]
    """Outermost first."""
    sources: Mapping[str, SourceEntry]
    """All four sources; one without an entry in the pack has the defaults (50 m, wgs84, no fallback)."""
    grid: Grid
    categories: tuple[Category, ...]
    """Sorted by code; a category is an index into this tuple."""
    groups: tuple[str, ...]
    """Sorted."""
    rules: tuple[Rule, ...]
    """In the file's order."""
    related: tuple[Related, ...]
    devices: Mapping[str, Device]
    places: Places
    holidays: Mapping[date, str]
    """``holiday`` or ``workday`` (a make-up working day)."""
    version: str
    """First 16 hex digits of a SHA-256 over names and contents of the pack's files."""
    warnings: tuple[Fault, ...] = field(default=(), repr=False)
    layers: Mapping[str, Grid] = field(default_factory=dict)
    """The grid's other layers by name; codes of their cells are carried beside the main grid's."""
    platforms: Mapping[str, PlatformMapping] = field(default_factory=dict)
    """Platforms that name their fields their own way."""

    @property
    def platform_topics(self) -> list[str]:
        """The own topics of its platforms, without prefix."""
        return [platform_topic(mapping.source, name) for name, mapping in self.platforms.items()]

    @cached_property
    def _index_of_code(self) -> dict[str, int]:
        return {category.code: index for index, category in enumerate(self.categories)}

    @cached_property
    def _index_of_label(self) -> dict[str, dict[str, int]]:
        """Per source every label it may send, each category's own code among them."""
        indices: dict[str, dict[str, int]] = {name: dict(self._index_of_code) for name in self.sources}
        for index, category in enumerate(self.categories):
            for source, labels in category.labels.items():
                indices[source].update(dict.fromkeys(labels, index))
        return indices

    @property
    def phrases(self) -> set[str]:
        """What whoever speaks of a kind of thing may call it: names of categories, and sources' labels."""
        labels = {label for one in self.categories for labels in one.labels.values() for label in labels}
        return labels | {category.name for category in self.categories}

    def category_index(self, code: str) -> int:
        """Index of the category with this code, or -1."""
        return self._index_of_code.get(code, -1)

    def category_of(self, source: str, label: str) -> int:
        """Index of the category that a source means by a label, or -1.

        A category's own code is accepted from every source.  The source's fallback is not applied here: whoever
        asks must be able to tell a mapped label from an unknown one.
        """
        return self._index_of_label[source].get(label, -1)


def read_pack_files(folder: Path) -> dict[str, bytes]:
    """Read a pack's files from its folder: the only place here that touches the disk.

    Raises
    ------
    PackError
        If the folder is not there, or a file in it cannot be read.  A *missing* file is found by `parse_pack`.
    """
    if not folder.is_dir():
        raise PackError([Fault(str(folder), None, "no such folder; a city pack is a folder with city.toml in it")])
    files: dict[str, bytes] = {}
    for name in PACK_FILES:
        try:
            files[name] = (folder / name).read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise PackError([Fault(str(folder / name), None, f"cannot be read: {error.strerror}")]) from error
    return files


def parse_pack(files: Mapping[str, bytes]) -> CityPack:
    """Make a pack of its files' contents.

    Raises
    ------
    PackError
        With every fault that `streams.pack_check.check_pack` finds, warnings left out.
    """
    parts, faults = examine_pack(files, gaps=False)
    if parts is None:
        raise PackError([fault for fault in faults if fault.severity == "fault"])
    return CityPack(
        name=parts.city.name,
        code=parts.city.code,
        timezone=parts.city.timezone,
        levels=parts.city.levels,
        sources=parts.sources,
        grid=parts.grid,
        layers=parts.layers,
        categories=parts.categories,
        groups=tuple(sorted({category.group for category in parts.categories})),
        rules=parts.rules,
        related=parts.related,
        devices=parts.devices,
        places=parts.places,
        holidays=parts.holidays,
        version=parts.version,
        warnings=tuple(faults),
        platforms=parts.platforms,
    )


def load_pack(folder: Path) -> CityPack:
    """Read and parse the pack in a folder; raises `PackError`."""
    return parse_pack(read_pack_files(folder))
