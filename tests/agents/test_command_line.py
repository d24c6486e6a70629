"""The command line as a stranger meets it: quick help, examples that work, one voice, exit codes as promised."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from agents.commands import COMMANDS, main
from agents.commands.console import counted
from agents.commands.lazy_group import LazyGroup

ROOT = Path(__file__).resolve().parent.parent.parent
PACK = ROOT / "packs" / "sample"


def citybrain(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="citybrain")


def leaves(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from leaves(command, (*path, name))
        else:
            yield (*path, name), command


ALL = dict(leaves(main))
each_command = pytest.mark.parametrize("path", ALL, ids=" ".join)


# --------------------------------------------------------------------------------------------------- a quick help


def test_help_and_completion_import_no_command_and_nothing_heavy():
    """Two seconds of numba, shapely and clients before the first line of help: what the table is there against."""
    script = (
        "import sys\n"
        "from agents.commands import main\n"
        "assert main(['--help'], standalone_mode=False) == 0\n"
        "assert main.shell_complete(__import__('click').Context(main), 'rep')[0].value == 'replay'\n"
        "ours = ['geo', 'streams', 'sinks', 'agents.commands.console', 'agents.commands.replay']\n"
        "heavy = ['numba', 'numpy', 'shapely', 'faust', 'rich', 'msgspec', 'confluent_kafka', 'clickhouse_connect']\n"
        "print('loaded:', [name for name in ours + heavy if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == "loaded: []\n"
    assert all(f"  {name} " in done.stdout for name in COMMANDS)


def test_help_says_each_command_in_one_line():
    lines = citybrain("--help").stdout.splitlines()
    for name, (_, text) in COMMANDS.items():
        assert f"  {name.ljust(max(map(len, COMMANDS)))}  {text}" in lines


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_names_a_command_that_calls_itself_so(name):
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert command.name == name


def test_a_table_that_leads_to_no_command_is_a_broken_programme():
    group = LazyGroup(table={"here": ("agents.commands:COMMANDS", "No command.")})
    with pytest.raises(TypeError, match="is a dict, not a click command"):
        group.get_command(click.Context(group), "here")


def test_a_slip_of_the_finger_is_told_what_was_meant():
    result = citybrain("reply")
    assert result.exit_code == 2
    assert "No such command 'reply'. Did you mean 'replay'?" in result.stderr
    assert "Did you mean" not in citybrain("xyzzy").stderr


def test_the_version_is_that_of_the_distribution():
    result = citybrain("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("city-brain-streams ")


# ------------------------------------------------------------------------------------------- every command's help


def examples_of(command: click.Command) -> list[str]:
    lines = (line.strip() for line in (command.epilog or "").splitlines())
    return [line[line.index("citybrain ") :] for line in lines if "citybrain " in line]


@each_command
def test_help_has_an_example_that_the_command_takes(path):
    """Parsed, not run: no option in it may be one that was renamed."""
    examples = examples_of(ALL[path])
    assert examples
    for example in examples:
        words = shlex.split(example)
        assert tuple(words[1 : 1 + len(path)]) == path
        with ALL[path].make_context(path[-1], words[1 + len(path) :]) as context:
            assert context.params
    shown = citybrain(*path, "--help").stdout.split("\n  Example")[1].splitlines()
    assert shown[0] in (":", "s:")
    assert [line.strip() for line in shown[1:] if "citybrain " in line][-1].endswith(examples[-1])


@each_command
def test_every_option_says_what_it_is_for(path):
    for parameter in ALL[path].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
            assert parameter.help[0].isupper() or parameter.help[0].isdigit(), parameter.help


@each_command
def test_json_is_one_option_with_one_wording(path):
    options = {parameter.name: parameter for parameter in ALL[path].params if isinstance(parameter, click.Option)}
    if path == ("worker",):  # it prints nothing but its log
        assert options["as_json"].help == "Log one JSON object a line, for machines."
    else:
        assert options["as_json"].help == "One JSON object on standard output, for machines."


@each_command
def test_wrong_usage_exits_2_and_names_the_help(path):
    result = citybrain(*path, "--no-such-option")
    assert result.exit_code == 2
    assert f"Try 'citybrain {' '.join(path)} --help' for help." in result.stderr
    assert "No such option: --no-such-option" in result.stderr


# -------------------------------------------------------------------------------------------- what cannot be done


NOWHERE = "{folder}/nowhere"


@pytest.mark.parametrize(
    "arguments",
    [
        ["replay", NOWHERE, "--city", PACK, "--out", "{folder}/out"],
        ["replay", "{folder}/empty", "--city", NOWHERE, "--out", "{folder}/out"],
        ["replay", "{folder}/empty", "--city", PACK, "--out", "{folder}/empty"],
        ["explain", "any", "--from", NOWHERE],
        ["evaluate", NOWHERE, "--truth", "{folder}/empty"],
        ["evaluate", "{folder}/replayed", "--truth", NOWHERE],
        ["evaluate", "{folder}/replayed", "--truth", "{folder}"],
        ["simulate", "--city", NOWHERE, "--out", "{folder}/o.jsonl", "--truth", "{folder}/t.csv"],
        ["simulate", "--city", PACK, "--out", "{folder}/o", "--truth", "{folder}/t.csv", "--errors", NOWHERE],
        ["build-pack", "--boundaries", NOWHERE, "--out", "{folder}/pack"],
        ["build-pack", "--boundaries", "{folder}", "--out", "{folder}/pack"],
        ["worker", "--config", NOWHERE],
        ["topics", "check", "--brokers", "127.0.0.1:1"],
        ["topics", "create", "--brokers", "127.0.0.1:1"],
        ["produce", "{folder}/empty", "--brokers", "127.0.0.1:1"],
        ["record", "--topics", "incidents", "--out", "{folder}/r.jsonl", "--brokers", "127.0.0.1:1"],
        ["demo", "--city", NOWHERE],
        ["demo", "--out", "{folder}/empty", "--hours", "0.1"],
        ["schemas", "--out", "{folder}/empty"],
    ],
    ids=lambda arguments: " ".join(Path(str(word)).name for word in arguments),
)
def test_input_that_is_not_there_exits_1_with_one_line_that_names_it(arguments, tmp_path):
    (tmp_path / "empty").touch()
    (tmp_path / "replayed").mkdir()
    (tmp_path / "replayed" / "assignments.jsonl").touch()
    result = citybrain(*(str(word).format(folder=tmp_path) for word in arguments))
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    lines = result.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("Error: ")
    assert str(tmp_path) in lines[0] or "127.0.0.1:1" in lines[0]


@pytest.mark.parametrize(
    "arguments",
    [
        ["replay", "x", "--city", PACK, "--out", "x", "--shards", "0"],
        ["build-pack", "--boundaries", "x", "--out", "x", "--cell-m", "0"],
        ["demo", "--port", "65536"],
        ["worker", "--port", "-1"],
        ["topics", "check", "--brokers", "no port"],
        ["explain", "x", "--from", "ftp://x"],
        ["produce", "x", "--max-lag", "5"],
        ["record", "--topics", ",", "--out", "x"],
        ["replay"],
    ],
    ids=lambda arguments: " ".join(Path(str(word)).name for word in arguments),
)
def test_a_value_that_no_input_could_make_right_exits_2(arguments):
    result = citybrain(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr.splitlines()[-1].startswith("Error: ")


def test_faults_of_a_pack_are_named_with_their_folder(tmp_path):
    (tmp_path / "city.toml").write_text("name = 7\n", encoding="utf-8")
    result = citybrain("replay", PACK / "city.toml", "--city", tmp_path, "--out", tmp_path / "out")
    first, *faults = result.stderr.splitlines()
    assert first.startswith(f"Error: {tmp_path}: ")
    assert f"`citybrain check-city {tmp_path}`" in first
    assert 1 < len(faults) <= 5
    assert all(line.startswith(f"{tmp_path}/") for line in faults)


def test_bad_places_of_a_recording_are_named_and_bounded(tmp_path):
    recording = tmp_path / "bad.jsonl"
    recording.write_text("no json\n" * 7, encoding="utf-8")
    result = citybrain("replay", recording, "--city", PACK, "--out", tmp_path / "out", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["bad_lines"] == 7
    lines = result.stderr.splitlines()
    assert [line.split(": ")[0] for line in lines[:5]] == [f"{recording}:{line}" for line in range(1, 6)]
    assert lines[5:] == [
        "… and 2 more places",
        f"Error: 7 places could not be read; everything else was replayed into {tmp_path / 'out'}",
    ]


# --------------------------------------------------------------------------------------------------- for machines


def test_json_is_one_object_and_nothing_else_on_standard_output(tmp_path):
    day, truth, out = tmp_path / "day.jsonl", tmp_path / "truth.csv", tmp_path / "out"
    answers = [
        citybrain("simulate", "--city", PACK, "--hours", "0.5", "--out", day, "--truth", truth, "--json"),
        citybrain("replay", day, "--city", PACK, "--out", out, "--json"),
        citybrain("evaluate", out, "--truth", truth, "--json"),
        citybrain("check-city", PACK, "--json"),
        citybrain("schemas", "--out", tmp_path / "docs", "--json"),
        citybrain("schemas", "--out", tmp_path / "docs", "--check", "--json"),
        citybrain("build-pack", "--boundaries", PACK / "grid.geojson", "--cell-m", 2000, "--out", tmp_path, "--json"),
    ]
    report_id = json.loads((out / "assignments.jsonl").read_bytes().splitlines()[0])["report_id"]
    answers.append(citybrain("explain", report_id, "--from", out, "--json"))
    for answer in answers:
        assert answer.exit_code == 0, answer.output
        assert answer.stderr == ""
        assert isinstance(json.loads(answer.stdout), dict)
        assert answer.stdout.startswith("{\n  ")


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 faults"), (1, "1 fault"), (2, "2 faults"), (12345, "12,345 faults")]
)
def test_what_is_counted_is_said_in_its_number(count, text):
    assert counted(count, "fault") == text


def test_schemas_that_are_out_of_step_exit_1_and_are_named(tmp_path):
    assert citybrain("schemas", "--out", tmp_path).exit_code == 0
    assert citybrain("schemas", "--out", tmp_path, "--check").exit_code == 0
    (tmp_path / "schemas" / "iot.schema.json").write_text("{}", encoding="utf-8")
    (tmp_path / "schemas" / "drone.schema.json").write_text("{}", encoding="utf-8")
    result = citybrain("schemas", "--out", tmp_path, "--check")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        f"{tmp_path}/schemas/iot.schema.json: not as the types say; run `citybrain schemas --out {tmp_path}`",
        f"{tmp_path}/schemas/drone.schema.json: no message is called that; delete it",
        f"{tmp_path}: 10 files, 1 differ, 1 superfluous",
    ]
    assert "10 files, 1 written" in citybrain("schemas", "--out", tmp_path).stdout
