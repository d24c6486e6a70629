"""`citybrain schemas`: the public messages as JSON Schemas and as an AsyncAPI document."""

from __future__ import annotations

from pathlib import Path

import click

from agents.commands.console import cannot_read, cannot_write, json_option, say_json
from sinks.topics import DEFAULT_PREFIX, topic_table
from streams.schemas import TopicFacts, asyncapi_text, schema_files


def documents() -> dict[str, str]:
    """The text of every file by its path below the documentation's folder."""
    topics = [
        TopicFacts(spec.name.removeprefix(DEFAULT_PREFIX), spec.partitions, spec.config()) for spec in topic_table()
    ]
    schemas = {f"schemas/{name}": text for name, text in schema_files().items()}
    return {**schemas, "asyncapi.json": asyncapi_text(topics, prefix=DEFAULT_PREFIX)}


@click.command(
    epilog="""\b
Example:
  citybrain schemas --out build/docs
"""
)
@click.option(
    "--out",
    default=Path("docs"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder for asyncapi.json and schemas/*.schema.json.",
)
@click.option("--check", is_flag=True, help="Write nothing; exit 1 if a file there is not as it would be written.")
@json_option
@click.pass_context
def schemas(context: click.Context, out: Path, check: bool, as_json: bool) -> None:
    """Write the JSON Schema of every public message, and an AsyncAPI document of every topic.

    Both are made from the service's own types, so what they promise is what is read and sent.
    """
    wanted = documents()
    stale = _stale(out, wanted)
    if not check:
        _write(out, {name: wanted[name] for name in stale})
    superfluous = _superfluous(out, wanted)
    if as_json:
        done = {"differ": stale, "superfluous": superfluous} if check else {"written": stale}
        say_json({"out": str(out), "files": list(wanted), **done})
    elif check:
        for name in stale:
            click.echo(f"{out / name}: not as the types say; run `citybrain schemas --out {out}`")
        for name in superfluous:
            click.echo(f"{out / name}: no message is called that; delete it")
        click.echo(f"{out}: {len(wanted)} files, {len(stale)} differ, {len(superfluous)} superfluous")
    else:
        click.echo(f"{out}: {len(wanted)} files, {len(stale)} written, the others were as they should be")
    context.exit(1 if check and (stale or superfluous) else 0)


def _stale(out: Path, wanted: dict[str, str]) -> list[str]:
    """Files that are missing or differ."""
    try:
        return [
            name
            for name, text in wanted.items()
            if not (out / name).is_file() or (out / name).read_bytes() != text.encode()
        ]
    except OSError as error:
        cannot_read(out, error)


def _superfluous(out: Path, wanted: dict[str, str]) -> list[str]:
    """Schema files of messages that there are no more."""
    return sorted({f"schemas/{path.name}" for path in (out / "schemas").glob("*.schema.json")} - set(wanted))


def _write(out: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = out / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())
        except OSError as error:
            cannot_write(path, error, "choose another folder with --out")
