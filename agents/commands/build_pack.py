"""``citybrain build-pack``: a grid and the start of a pack for a city that has none."""

from __future__ import annotations

import gzip
import tomllib
import zlib
from pathlib import Path

import click

from agents.commands.console import (
    cannot_read,
    cannot_write,
    fail,
    fault_line,
    json_option,
    progress,
    say_json,
)
from geo.datum import CRS
from streams.pack import read_pack_files
from streams.pack_building import (
    DEFAULT_CODE_PREFIX,
    LEVELS,
    BuildError,
    build_pack,
    read_boundaries,
    read_official_names,
)
from streams.pack_check import check_pack
from streams.pack_entries import CITY, GRID


@click.command(
    "build-pack",
    epilog="""\b
Example:
  citybrain build-pack --boundaries streets.geojson --cell-m 150 --name 示范市 --out packs/shifan
""",
)
@click.option(
    "--boundaries",
    "boundary_files",
    required=True,
    multiple=True,
    type=click.Path(path_type=Path),
    help="GeoJSON (or .gz) of county, street or community polygons; may be given several times.",
)
@click.argument("more_boundaries", nargs=-1, type=click.Path(path_type=Path), metavar="[FILE]…")
@click.option(
    "--cell-m",
    default=150.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="Side of a full cell, metres.",
)
@click.option(
    "--town-cell-m",
    default=150.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="The same in towns, if smaller: boundaries with more official communities (--names) than cells of --cell-m.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The pack's folder.")
@click.option("--name", help="The city's name; by default that of the folder.")
@click.option("--code", help="The city's code; by default from the county codes.")
@click.option("--timezone", default="Asia/Shanghai", show_default=True, help="IANA name.")
@click.option("--level-property", help="Property that says county, street or community; else the code's length does.")
@click.option("--code-property", help="Property with the code; else code or adcode.")
@click.option("--name-property", help="Property with the name; else name.")
@click.option(
    "--code-prefix", help=f"Six digits for boundaries without a county code.  [default: {DEFAULT_CODE_PREFIX}]"
)
@click.option(
    "--names",
    "names_file",
    type=click.Path(path_type=Path),
    help="CSV (or .gz) of official names: village_code, village, township_code, township, county_code, county.",
)
@click.option("--crs", type=click.Choice(CRS), default="wgs84", show_default=True, help="Datum of the boundaries.")
@click.option("--jitter", default=0.0, type=click.FloatRange(0, 0.4), help="Irregular cells: 0 squares, 0.4 at most.")
@json_option
@click.pass_context
def build_pack_command(
    context: click.Context,
    boundary_files: tuple[Path, ...],
    more_boundaries: tuple[Path, ...],
    cell_m: float,
    town_cell_m: float,
    out: Path,
    name: str | None,
    code: str | None,
    timezone: str,
    level_property: str | None,
    code_property: str | None,
    name_property: str | None,
    code_prefix: str | None,
    names_file: Path | None,
    crs: str,
    jitter: float,
    as_json: bool,
) -> None:
    """Subdivide boundaries into nested grid cells and start a city pack in folder --out.

    FILEs are further --boundaries.  Boundaries are repaired; where two overlap the smaller code has the area.  An
    existing grid.geojson is replaced; the pack's other files are written from commented templates only where they are
    not there yet.  A city.toml that is there says which levels the grid has.
    """
    levels = _levels(out / CITY)
    try:
        boundaries = []
        for file in (*boundary_files, *more_boundaries):
            boundaries += read_boundaries(
                str(file),
                _read(file),
                level_property=level_property,
                code_property=code_property,
                name_property=name_property,
                crs=crs,
            )
        names = read_official_names(str(names_file), _read(names_file)) if names_file else None
        with progress("subdividing", "cells") as advance:
            built = build_pack(
                boundaries,
                cell_m=cell_m,
                town_cell_m=town_cell_m,
                name=name or out.resolve().name,
                code=code,
                code_prefix=code_prefix,
                timezone=timezone,
                names=names,
                levels=levels,
                jitter=jitter,
            )
            advance(built.cells["grid"])
    except BuildError as error:
        fail(str(error))
    written = _write(out, built.files)
    faults = check_pack(read_pack_files(out))
    bad = [fault for fault in faults if fault.severity == "fault"]
    if as_json:
        answer = {
            "pack": str(out),
            "cells": built.cells,
            "written": written,
            "notes": built.notes,
            "faults": [str(fault) for fault in faults],
        }
        say_json(answer)
    else:
        for note in built.notes:
            click.echo(f"note: {note}")
        for fault in faults:
            click.echo(fault_line(out, fault))
        click.echo(
            f"{out}: {', '.join(f'{n:,} {level}' for level, n in built.cells.items())}; wrote {', '.join(written)}"
        )
    context.exit(1 if bad else 0)


def _levels(city_toml: Path) -> tuple[str, ...]:
    """The levels of a pack that has its settings already, else all of them."""
    try:
        settings = tomllib.loads(city_toml.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return LEVELS
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        fail(f"{city_toml}: cannot be read, so the grid's levels are not known: {error}")
    levels = settings.get("levels")
    if not isinstance(levels, list) or not all(isinstance(level, str) for level in levels):
        fail(f"{city_toml}: levels = {levels!r} must be a list of names, outermost first")
    return tuple(levels)


def _read(file: Path) -> bytes:
    try:
        data = file.read_bytes()
        return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        fail(f"{file}: cannot be read ({error}); fetch it again")
    except OSError as error:
        cannot_read(file, error)


def _write(out: Path, files: dict[str, bytes]) -> list[str]:
    written = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            target = out / name
            if name == GRID or not target.exists():
                # Written beside and moved over, so that a full disk leaves the old grid and not half a new one.
                part = out / f".{name}.part"
                part.write_bytes(content)
                part.replace(target)
                written.append(name)
    except OSError as error:
        cannot_write(out, error)
    return written
