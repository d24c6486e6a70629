"""``citybrain check-city``: every fault of a city pack, with file and line."""

from __future__ import annotations

from pathlib import Path

import click
import orjson

from streams.pack import PackError, read_pack_files
from streams.pack_check import check_pack, pack_version
from streams.pack_entries import Fault


@click.command("check-city", epilog="Example:  citybrain check-city packs/sample --strict")
@click.argument("pack", type=click.Path(path_type=Path))
@click.option("--strict", is_flag=True, help="Take warnings (gaps in the grid, unknown keys) for faults.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines for people.")
@click.pass_context
def check_city(context: click.Context, pack: Path, strict: bool, as_json: bool) -> None:
    """Name every fault of the city pack in folder PACK; exit 1 if there is one."""
    try:
        files = read_pack_files(pack)
    except PackError as error:
        files, faults = {}, error.faults
    else:
        faults = check_pack(files)
    bad = [fault for fault in faults if strict or fault.severity == "fault"]
    if as_json:
        answer = {
            "pack": str(pack),
            "version": pack_version(files) if files else None,
            "ok": not bad,
            "faults": [_row(fault) for fault in faults],
        }
        click.echo(orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode())
    else:
        for fault in faults:
            click.echo(str(fault) if fault.file.startswith(str(pack)) else f"{pack}/{fault}")
        warnings = sum(fault.severity == "warning" for fault in faults)
        click.echo(f"{pack}: {len(faults) - warnings} faults, {warnings} warnings: {'refused' if bad else 'good'}")
    context.exit(1 if bad else 0)


def _row(fault: Fault) -> dict[str, object]:
    return {"file": fault.file, "line": fault.line, "severity": fault.severity, "message": fault.message}
