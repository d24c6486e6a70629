"""``citybrain check-city``: every fault of a city pack, with file and line."""

from __future__ import annotations

from pathlib import Path

import click

from agents.commands.console import counted, fault_line, json_option, say_json
from streams.pack import PackError, read_pack_files
from streams.pack_check import check_pack, pack_version
from streams.pack_entries import Fault


@click.command(
    "check-city",
    epilog="""\b
Example:
  citybrain check-city packs/sample --strict
""",
)
@click.argument("pack", type=click.Path(path_type=Path))
@click.option("--strict", is_flag=True, help="Take warnings (gaps in the grid, unknown keys) for faults.")
@json_option
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
        say_json(answer)
    else:
        for fault in faults:
            click.echo(fault_line(pack, fault))
        warnings = sum(fault.severity == "warning" for fault in faults)
        found = f"{counted(len(faults) - warnings, 'fault')}, {counted(warnings, 'warning')}"
        click.echo(f"{pack}: {found}: {'refused' if bad else 'good'}")
    context.exit(1 if bad else 0)


def _row(fault: Fault) -> dict[str, object]:
    return {"file": fault.file, "line": fault.line, "severity": fault.severity, "message": fault.message}
