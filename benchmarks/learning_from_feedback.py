"""What dispatchers' feedback teaches, beside the truth of the very same weeks.

    python -m benchmarks.learning_from_feedback [--save]

Four simulated weeks whose dispatch centres overlook half of the duplicates and of what does not belong
(`streams/error_model.toml`) are played with the sample pack; `fit` learns from their feedback alone, and once more from
their truth.  Scored are two other weeks without feedback, those of `benchmarks.quality --only week`.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import numpy as np

from benchmarks.labelled_reports import LabelledReports, simulated
from benchmarks.quality import SAMPLE
from benchmarks.quality_figures import Resampled, check, figures, scored, together
from benchmarks.results_file import tell
from benchmarks.service import Replayed, labels_of
from streams.error_model import SCENARIOS, read_error_model, shipped_text
from streams.evaluation import NONE, pairwise, read_truth
from streams.fitting import Fitted, fit
from streams.labels import LabelledStream
from streams.pack import load_pack
from streams.privacy import TEST_KEY
from streams.rehearsal import rehearse
from streams.simulation import truth_csv

SCENARIO = "normal-week"
HOURS, SEED = 4 * 168.0, 1
SCORED_SEEDS = (11, 12)
LOWER_DIAL = 0.02
"""For whoever knows that much is overlooked, so that true pairs count as false ones."""
_CHUNK = 5_000


def measure(fitted: Fitted | None, weeks: list[LabelledReports]) -> dict[str, object]:
    """What a setting makes of some weeks, together; None is the sample pack as it stands."""
    parts = []
    for week in weeks:
        if fitted is None:
            incident = Replayed().predict(week)
        else:
            incident = replace(fitted, labelled=labels_of(week)).incidents()
        parts.append(scored(week, incident, np.ones(len(week), bool)))
    of_all = together(parts)
    resampled = Resampled(of_all.cluster)
    check(of_all, resampled)
    return figures(of_all, resampled)


def main() -> None:
    pack = load_pack(SAMPLE)
    model = read_error_model(shipped_text(SCENARIOS[SCENARIO]), name=SCENARIO)
    start = datetime(2026, 6, 1, tzinfo=timezone(timedelta(hours=8)))
    played = rehearse(pack, model, seed=SEED, start=start, hours=HOURS).simulation
    stream = LabelledStream(pack, TEST_KEY)
    for at in range(0, len(played.messages), _CHUNK):
        stream.take(played.messages[at : at + _CHUNK])
    by_feedback, said = stream.labelled_by_feedback()
    by_truth = stream.labelled(read_truth(truth_csv(played.truth).splitlines(keepends=True), name="truth"))
    known = (by_feedback.cluster != NONE) & (by_truth.cluster != NONE)
    weeks = [simulated(SAMPLE, SCENARIO, hours=168, seed=seed, vary=False) for seed in SCORED_SEEDS]
    settings = {
        "sample pack": None,
        "from feedback": fit(by_feedback),
        f"from feedback, dial {LOWER_DIAL:g}": fit(by_feedback, dial=LOWER_DIAL),
        "from truth": fit(by_truth),
    }
    found = {name: measure(fitted, weeks) for name, fitted in settings.items()}
    assert known.mean() > 0.8, "dispatchers saw to most of what was reported"
    tell(
        "learning_from_feedback",
        {
            "reports": len(by_feedback),
            "labelled_by_feedback": int(np.count_nonzero(by_feedback.cluster != NONE)),
            "incidents_seen_to": said.seen_to,
            "duplicates_named": said.duplicates,
            "misjoined_named": said.misjoined,
            "labels_against_truth": dict(
                zip(
                    ("precision", "recall", "f1"),
                    pairwise(by_feedback.cluster[known], by_truth.cluster[known]),
                    strict=True,
                )
            ),
            "scored": found,
        },
    )


if __name__ == "__main__":
    main()
