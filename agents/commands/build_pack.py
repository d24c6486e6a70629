"""``citybrain build-pack``: a grid and the start of a pack for a city that has none."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import click
import orjson

from geo.datum import CRS
from streams.pack import read_pack_files
from streams.pack_building import (
    DEFAULT_CODE_PREFIX,
    BuildError,
    build_pack,
    read_boundaries,
    read_official_names,
)
from streams.pack_check import GRID, check_pack

_EXAMPLE = "Example:  citybrain build-pack --boundaries streets.geojson --cell-m 150 --name 示范市 --out packs/shifan"


@click.command("build-pack", epilog=_EXAMPLE)
@click.option(
    "--boundaries",
    "boundary_files",
    required=True,
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="GeoJSON (or .gz) of county, street or community polygons; may be given several times.",
)
@click.argument("more_boundaries", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--cell-m", default=150.0, show_default=True, help="Side of a full cell, metres.")
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="The pack's folder.")
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
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV (or .gz) of official names: village_code,village,township_code,township,county_code,county.",
)
@click.option("--crs", type=click.Choice(CRS), default="wgs84", show_default=True, help="Datum of the boundaries.")
@click.option("--jitter", default=0.0, type=click.FloatRange(0, 0.4), help="Irregular cells: 0 squares, 0.4 at most.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines for people.")
@click.pass_context
def build_pack_command(
    context: click.Context,
    boundary_files: tuple[Path, ...],
    more_boundaries: tuple[Path, ...],
    cell_m: float,
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
    """Subdivide boundaries into nested grid cells and start a city pack in folder OUT.

    Boundaries are repaired; where two overlap the smaller code has the area.  An existing grid.geojson is replaced;
    the pack's other files are written from commented templates only where they are not there yet.
    """
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
        built = build_pack(
            boundaries,
            cell_m=cell_m,
            name=name or out.resolve().name,
            code=code,
            code_prefix=code_prefix,
            timezone=timezone,
            names=names,
            jitter=jitter,
        )
    except BuildError as error:
        raise click.ClickException(str(error)) from error
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
        click.echo(orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode())
    else:
        for note in built.notes:
            click.echo(f"note: {note}")
        for fault in faults:
            click.echo(f"{out}/{fault}")
        click.echo(
            f"{out}: {', '.join(f'{n} {level}' for level, n in built.cells.items())}; wrote {', '.join(written)}"
        )
    context.exit(1 if bad else 0)


def _read(file: Path) -> bytes:
    try:
        data = file.read_bytes()
        return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (OSError, EOFError, zlib.error) as error:
        raise click.ClickException(f"{file}: cannot be read: {error}") from error


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
        raise click.ClickException(
            f"{out}: cannot be written: {error.strerror}; is there room, and is it yours?"
        ) from error
    return written
