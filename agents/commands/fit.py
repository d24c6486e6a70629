"""`citybrain fit`: learn from labelled reports how a city's evidence is to be weighed."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agents.commands.console import (
    cannot_write,
    counted,
    fail,
    json_option,
    load_city,
    progress,
    say_json,
    show_bad_lines,
)
from agents.commands.truth import load_truth
from streams.evaluation import Truth
from streams.privacy import TEST_KEY
from streams.recording import BadLine, RecordedMessage, RecordingError, read_recording

if TYPE_CHECKING:
    from streams.feedback_labels import FeedbackLabels
    from streams.fitting import Figures, Fitted
    from streams.labels import LabelledReports
    from streams.pack import CityPack

_CHUNK = 5_000


@click.command(
    epilog="""\b
Example:
  citybrain fit quarter.jsonl.gz --truth truth.csv.gz --city packs/mine --out build/packs/mine
  citybrain fit quarter.jsonl.gz --city packs/mine --out build/packs/mine
"""
)
@click.argument("recordings", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RECORDING…")
@click.option(
    "--truth",
    "truth_path",
    type=click.Path(path_type=Path),
    help="CSV (or .csv.gz) with report_id, cluster_id and optionally source, is_duplicate, parent_id, link_quality. "
    "Without it the recording's own feedback is learnt from.",
)
@click.option("--city", required=True, type=click.Path(path_type=Path), help="The city pack, a folder.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the fitted pack, a new one.")
@click.option(
    "--dial",
    default=0.05,
    show_default=True,
    type=click.FloatRange(0, 10),
    help="What joining a report costs that nobody flagged, where missing a labelled one costs 1: more, fewer joins.",
)
@click.option(
    "--until",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"]),
    help="Learn only from what happened before; UTC unless it says.",
)
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0, 2**31), help="Of the search.")
@click.option("--no-expectation", is_flag=True, help="Skip the cross-validation, which takes most of the time.")
@json_option
def fit(
    recordings: tuple[Path, ...],
    truth_path: Path | None,
    city: Path,
    out: Path,
    dial: float,
    until: datetime | None,
    seed: int,
    no_expectation: bool,
    as_json: bool,
) -> None:
    """Learn from RECORDINGs, and a truth or their feedback, how to weigh the evidence that two reports are one event.

    Writes to --out a copy of the pack --city whose catalogue.toml has the thresholds, windows, radii, weights and
    related categories found, with comments, to be read and overruled.  Labels may be incomplete: a report not flagged
    is a weak hint, a category without labels is unknown.  Such a one keeps its radius and window and is weighed as all
    others are together.  A [[related]] that a person wrote stays.

    Where nearly all reports are labelled a regression tells the weights in seconds; else a search does, in minutes,
    leaves [[related]] alone, and takes a category whose group has fewer than 20 labels for one without.

    Without --truth dispatchers are believed: whoever accepted an incident or saw to it takes its reports so far for one
    event, `duplicate_of` says that two incidents are one, `misjoined` which reports are of another.  --city must be the
    pack that the incidents were made with.
    """
    from streams.fitting import figures_before, figures_expected
    from streams.fitting import fit as fit_labels
    from streams.labels import LabelError

    for path in recordings:
        if not path.exists():
            fail(f"{path}: no such recording; check the path")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        fail(f"{out}: there is something already; --out must be a new folder or an empty one")
    pack = load_city(city)
    anew = _fitted_pairs(city)
    truth = None if truth_path is None else load_truth(truth_path)
    bad_lines: list[BadLine] = []
    try:
        labelled, said = _labelled(recordings, pack, truth, until, bad_lines)
        rounds = 1 if no_expectation else 4
        with progress("fitting", "category groups") as advance:
            fitted = fit_labels(labelled, dial=dial, seed=seed, anew=anew, advance=advance)
            before = figures_before(labelled)
            after = None
            if rounds > 1:
                after = figures_expected(labelled, dial=dial, seed=seed, anew=anew, advance=advance)
    except (LabelError, RecordingError) as error:
        fail(str(error))
    _write(city, out, pack, fitted, dial)
    if as_json:
        say_json(_as_dict(fitted, pack, before, after, dial, seed) | _said(said))
    else:
        if said is not None:
            click.echo(_heard(said))
        click.echo(_table(fitted, pack, before, after))
        click.echo(f"the fitted pack is in {out}")
    if bad_lines:
        show_bad_lines(bad_lines)
        fail(f"{counted(len(bad_lines), 'place')} of the recordings could not be read; the rest was learnt from")


def _labelled(
    recordings: tuple[Path, ...], pack: CityPack, truth: Truth | None, until: datetime | None, bad_lines: list[BadLine]
) -> tuple[LabelledReports, FeedbackLabels | None]:
    """The reports of the recordings with their labels, and what feedback said if they come from there."""
    from streams.labels import LabelledStream

    stream = LabelledStream(pack, TEST_KEY)
    with progress("reading", "records") as advance:
        for path in recordings:
            messages = read_recording(path)
            while chunk := list(islice(messages, _CHUNK)):
                bad_lines += [one for one in chunk if isinstance(one, BadLine)]
                stream.take([one for one in chunk if isinstance(one, RecordedMessage)])
                advance(len(chunk))
    until_ms = None
    if until is not None:
        at = until if until.tzinfo else until.replace(tzinfo=UTC)
        until_ms = round(at.timestamp() * 1000)
    if truth is None:
        return stream.labelled_by_feedback(until_ms)
    labelled = stream.labelled(truth)
    return labelled if until_ms is None else labelled.before(until_ms), None


def _fitted_pairs(city: Path) -> set[frozenset[str]]:
    from streams.match_writing import fitted_pairs
    from streams.pack_entries import CATALOGUE

    return fitted_pairs((city / CATALOGUE).read_bytes())


def _write(city: Path, out: Path, pack: CityPack, fitted: Fitted, dial: float) -> None:
    """The pack's files into a new folder, the catalogue with what was learnt."""
    from streams.match_writing import WritingError, fitted_catalogue
    from streams.pack import read_pack_files
    from streams.pack_entries import CATALOGUE

    files = read_pack_files(city)
    try:
        files[CATALOGUE] = fitted_catalogue(files, pack, fitted, dial)
    except WritingError as error:
        fail(f"{city / CATALOGUE}: {error}")
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (out / name).write_bytes(content)
    except OSError as error:
        cannot_write(out, error)


def _said(said: FeedbackLabels | None) -> dict[str, object]:
    if said is None:
        return {}
    names = ("seen_to", "duplicates", "misjoined", "unknown")
    return {"feedback": {name: getattr(said, name) for name in names}}


def _heard(said: FeedbackLabels) -> str:
    """What the feedback said that can be learnt from."""
    parts = [
        f"{counted(said.seen_to, 'incident')} seen to",
        f"{counted(said.duplicates, 'pair')} of them called one event",
        f"{counted(said.misjoined, 'report')} called misjoined",
    ]
    text = f"feedback: {', '.join(parts)}"
    if said.unknown:
        text += f"; {said.unknown:,} named that --city does not make of the recording"
    return text


def _as_dict(
    fitted: Fitted, pack: CityPack, before: Figures, after: Figures | None, dial: float, seed: int
) -> dict[str, object]:
    return {
        "city": pack.code,
        "pack_version": pack.version,
        "dial": dial,
        "seed": seed,
        "reports": len(fitted.labelled),
        "labelled": fitted.labels,
        "common": fitted.common,
        "groups": dict(fitted.rows),
        "before": before._asdict(),
        "expected": after and after._asdict(),
    }


def _table(fitted: Fitted, pack: CityPack, before: Figures, after: Figures | None) -> str:
    """What is changed, a row a category with values of its own, and what is expected of it."""
    lines = [
        f"{counted(len(fitted.labelled), 'report')}, {counted(sum(fitted.labels.values()), 'labelled one')} in "
        f"{counted(len(fitted.labels), 'category group')}, {len(fitted.rows)} have enough for values of their own",
        "",
        f"{'category':<44}{'labels':>7}  {'radius':>12}  {'window':>13}  {'at one place':>13}  {'prior':>12}",
    ]
    for category in pack.categories:
        if category.group not in fitted.rows:
            continue
        new = fitted.category(category)
        lines.append(
            f"{category.code[:43]:<44}{fitted.labels[category.group]:>7}  "
            + "  ".join(
                f"{_change(was, now):>{width}}"
                for was, now, width in (
                    (f"{category.radius_m:g}", f"{new.radius_m:g} m", 12),
                    (_span(category.window_s), _span(new.window_s), 13),
                    (_span(category.match.same_place_window_s), _span(new.match.same_place_window_s), 13),
                    ("-" if category.match.prior is None else f"{category.match.prior}", f"{new.match.prior}", 12),
                )
            )
        )
    lines += ["", f"{'':<26}{'pack as it was':>16}{'expected':>12}"]
    for name in ("pair_precision", "pair_recall", "pair_f1", "b_cubed_f1", "join_unflagged"):
        expected = "-" if after is None else _share(getattr(after, name))
        lines.append(f"{name:<26}{_share(getattr(before, name)):>16}{expected:>12}")
    if after is not None:
        lines.append("expected: each third of the true events, told apart with what the other two taught")
    return "\n".join(lines)


def _change(was: str, now: str) -> str:
    return f"{was} > {now}"


def _span(seconds: float) -> str:
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds:g} s"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
