"""`citybrain evaluate`: a replay's answers against a truth."""

from __future__ import annotations

from pathlib import Path

import click

from agents.commands.console import cannot_read, fail, json_option, say_json
from agents.commands.truth import load_truth, opened
from streams.evaluation import EvaluationError, Scores, read_answers, read_merges, score


@click.command(
    epilog="""\b
Example:
  citybrain evaluate build/monday --truth truth.csv.gz
"""
)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--truth",
    "truth_path",
    required=True,
    type=click.Path(path_type=Path),
    help="CSV (or .csv.gz) with report_id, cluster_id and optionally source, is_duplicate, parent_id, link_quality.",
)
@click.option("--first-answers", is_flag=True, help="Score revision 0 of each report in place of its last.")
@json_option
def evaluate(folder: Path, truth_path: Path, first_answers: bool, as_json: bool) -> None:
    """Score the answers in DIR, written by `replay`, against a truth.

    Precision, recall and F1 are those inside the labelled clusters (rows with a cluster_id).  Beside them stands the
    share of reports not flagged as duplicates that were joined all the same, or merging everything would win.
    """
    assignments_path, incidents_path = folder / "assignments.jsonl", folder / "incidents.jsonl"
    if not assignments_path.is_file():
        fail(f"{assignments_path}: not there; DIR is the --out folder of a `citybrain replay`")
    truth = load_truth(truth_path)
    try:
        merged_into = {}
        if incidents_path.is_file():
            with opened(incidents_path) as lines:
                merged_into = read_merges(lines, name=str(incidents_path))
        with opened(assignments_path) as lines:
            answers = read_answers(
                lines, first_answers=first_answers, merged_into=merged_into, name=str(assignments_path)
            )
        scores = score(answers, truth)
    except EvaluationError as error:
        fail(str(error))
    except OSError as error:
        cannot_read(folder, error)
    figures: dict[str, object] = {"answers": "first" if first_answers else "last", **scores.as_dict()}
    if as_json:
        say_json(figures)
    else:
        click.echo(_table(scores))


def _table(scores: Scores) -> str:
    """The figures as a person reads them."""

    def share(value: float | None) -> str:
        return "      –" if value is None else f"{value:7.4f}"

    def row(name: str, *values: float | None) -> str:
        return f"{name:<34}" + "  ".join(share(value) for value in values)

    return "\n".join(
        [
            f"{scores.reports:,} reports in {scores.incidents:,} incidents; left out: {scores.repeats:,} repeats, "
            f"{scores.not_an_event:,} reports of no event",
            f"{scores.truth_reports:,} reports in the truth, {scores.absent:,} of them absent here; "
            f"{scores.labelled:,} labelled in {scores.clusters:,} true events",
            "",
            f"{'':<34}precision   recall       F1",
            row("pairwise", scores.pair_precision, scores.pair_recall, scores.pair_f1),
            row("B-cubed", scores.b_cubed_precision, scores.b_cubed_recall, scores.b_cubed_f1),
            "",
            row("link_recall", scores.link_recall) + f"  of {scores.links:,} links",
            row("join_unflagged", scores.join_unflagged) + f"  of {scores.unflagged:,} reports",
            row("  in categories that are flagged", scores.join_unflagged_in_flagging_categories)
            + f"  of {scores.unflagged_in_flagging_categories:,} reports",
            row("wrongly_merged", scores.wrongly_merged) + f"  of {scores.clusters:,} true events",
            row("collapsed", scores.collapsed) + f"  of {scores.reports:,} reports",
        ]
    )
