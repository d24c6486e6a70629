"""Which texts speak of one event: `python -m benchmarks.quality_text MESSAGES.csv.gz [--save]`.

MESSAGES has a title, a detail and a time for each message of citizens, and for some the cluster of messages that speak
of one issue (the data folder says where they come from; nothing of them is kept here but these figures).  Messages come
in order of time.  Each joins the message before it that it is most alike, if that is alike enough, else it founds an
issue (`founder`: it is compared with the messages that founded issues, only).

Labels say nothing about two messages of which one has none, so a model that joins more always finds more of them:
models are compared **at equal numbers of joins** among all messages, by B-cubed F1 inside the labelled clusters, one of
56 messages left out.  Intervals: 2,000 draws of whole clusters, both models on the same draws.

The rival is scikit-learn's TF-IDF of 2 to 4 characters, with each setting of a few tried, and of those the one best
here.  The other text models see all messages' counts at once and keep the whole text; a signature has 32 bytes and is
made of its own text alone.

`calibration` says how often a similarity comes up between messages of one issue, and between others that share a
district and a topic, and the ratio in hundredths of a power of ten.  Of one issue are those that a reader said to be;
each cluster has equal weight.  Copies are left out, for they were labelled because they are alike.

What is left out: precision outside the labelled clusters.  Of "two issues", some are one that nobody has labelled.
"""

from __future__ import annotations

import csv
import gzip
import re
import statistics
import sys
import time
from collections.abc import Callable
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse as sparse
from sklearn.feature_extraction.text import TfidfVectorizer

from benchmarks.results_file import tell
from geo.place_names import normalised
from streams.signatures import BITS, WORDS, signatures

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

JOINS = (120, 140, 160, 180, 200, 250, 300, 350, 400, 500)
MOST_JOINS = 1000
DRAWS = 2000
SALTS = 8
_HALF_AT = 30
"""A sign that so many stand before counts half as much as the first."""
_TOPICS = (
    "油烟|噪音|扰民|停车|车位|拆迁|征地|公交|地铁|物业|学校|教育|入学|医院|医保|房产证|违建|违规|工资|水|电|路灯|垃圾|施工"
    "|补贴|社保"
)


class Messages(NamedTuple):
    """The messages in order of time; cluster -1 for what is not labelled or left out."""

    titles: list[str]
    details: list[str]
    days: Floats
    cluster: Ints
    by_hand: npt.NDArray[np.bool_]
    """Labelled by a reader, not because the texts are equal; the cluster of 56, too."""
    every_cluster: Ints

    @property
    def texts(self) -> list[str]:
        return [f"{title}\n{detail}" for title, detail in zip(self.titles, self.details, strict=True)]


def read(path: Path) -> Messages:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["created_utc"] for row in rows] == sorted(row["created_utc"] for row in rows)
    numbers: dict[str, int] = {}
    cluster = np.array([numbers.setdefault(c, len(numbers)) if (c := row["cluster_id"]) else -1 for row in rows])
    largest = int(np.argmax(np.bincount(cluster[cluster >= 0])))
    return Messages(
        titles=[row["title"] for row in rows],
        details=[row["detail"] for row in rows],
        days=np.array([datetime.fromisoformat(row["created_utc"]).timestamp() / 86_400 for row in rows]),
        cluster=np.where(cluster == largest, -1, cluster),
        by_hand=np.array([row["label_source"] in ("hand", "rule") for row in rows]),
        every_cluster=cluster,
    )


# ----------------------------------------------------------------------------------------------------------- models


def tf_idf(texts: list[str], **settings: Any) -> Floats:
    found = TfidfVectorizer(analyzer="char", **settings).fit_transform(texts)
    return np.asarray((found @ found.T).toarray())


def weighed_pairs(texts: list[str], *, idf: bool) -> Floats:
    """Cosine of pairs of characters, what is said first counting most; what signatures are modelled on."""
    numbers: dict[str, int] = {}
    rows: list[int] = []
    columns: list[int] = []
    weights: list[float] = []
    for row, text in enumerate(texts):
        at = 0
        for part in normalised(text).split("\n"):
            for start in range(len(part) - 1):
                rows.append(row)
                columns.append(numbers.setdefault(part[start : start + 2], len(numbers)))
                weights.append(1 / (1 + (at + start) / _HALF_AT))
            at += len(part)
    found = sparse.csr_matrix((weights, (rows, columns)), (len(texts), len(numbers)))
    if idf:
        known_in = np.bincount(found.indices, minlength=len(numbers))
        found = found @ sparse.diags(np.log((1 + len(texts)) / (1 + known_in)) + 1)
    length = np.sqrt(np.asarray(found.multiply(found).sum(axis=1)).ravel())
    found = sparse.diags(1 / np.maximum(length, 1e-12)) @ found
    return np.asarray((found @ found.T).toarray())


def title_within(messages: Messages) -> tuple[Floats, Floats]:
    """How much of a message's title, by IDF, stands in the other's text (mean of both ways); cosine of whole texts."""
    model = TfidfVectorizer(analyzer="char", ngram_range=(2, 3), sublinear_tf=True).fit(messages.texts)
    titles, texts = model.transform(messages.titles), model.transform(messages.texts)
    cosine = np.asarray((texts @ texts.T).toarray())
    titles.data[:], texts.data[:] = 1, 1
    weighed = titles @ sparse.diags(model.idf_**2)
    share = np.asarray((weighed @ texts.T).toarray()) / np.asarray(weighed.sum(axis=1))
    return (share + share.T) / 2, cosine


def okapi(texts: list[str], *, k1: float = 1.2, b: float = 0.75) -> Floats:
    """BM25 of pairs of characters, both ways, each a share of what the text has with itself."""
    model = TfidfVectorizer(analyzer="char", ngram_range=(2, 2), use_idf=False, norm=None)
    counts = model.fit_transform(texts).tocsr()
    known_in = np.bincount(counts.indices, minlength=counts.shape[1])
    idf = np.log(1 + (len(texts) - known_in + 0.5) / (known_in + 0.5))
    length = np.asarray(counts.sum(axis=1)).ravel()
    per_entry = np.repeat(k1 * (1 - b + b * length / length.mean()), np.diff(counts.indptr))
    weighed = counts.copy()
    weighed.data = counts.data * (k1 + 1) / (counts.data + per_entry)
    weighed = weighed @ sparse.diags(idf)
    counts.data[:] = 1
    score = np.asarray((counts @ weighed.T).toarray())
    share = score / np.diag(score)[:, None]
    return np.asarray((share + share.T) / 2)


def bits_alike(rows: npt.NDArray[np.uint64]) -> Floats:
    differing = np.zeros((len(rows), len(rows)))
    for word in range(rows.shape[1]):
        differing += np.bitwise_count(rows[:, None, word] ^ rows[None, :, word])
    return np.asarray(1 - 2 * differing / (64 * rows.shape[1]))


# ---------------------------------------------------------------------------------------------------------- scoring


class Curve(NamedTuple):
    """By number of joins, ascending: the issue of each labelled message gives the shares of each cluster."""

    joins: Ints
    shares: Floats
    """shape (curve, clusters, 2): sum over a cluster's messages of B-cubed precision and of recall."""

    def at(self, joins: int) -> Floats:
        """The shares at the most joins that are no more than these."""
        return np.asarray(self.shares[np.searchsorted(self.joins, joins, side="right") - 1])


def shares(issue: Ints, cluster: Ints) -> Floats:
    labelled = np.flatnonzero(cluster >= 0)
    one_issue = issue[labelled][:, None] == issue[labelled][None, :]
    one_cluster = cluster[labelled][:, None] == cluster[labelled][None, :]
    both = (one_issue & one_cluster).sum(axis=1)
    found = np.zeros((cluster.max() + 1, 2))
    np.add.at(found[:, 0], cluster[labelled], both / one_issue.sum(axis=1))
    np.add.at(found[:, 1], cluster[labelled], both / one_cluster.sum(axis=1))
    return found


def b_cubed(summed: Floats, sizes: Floats) -> tuple[float, float, float]:
    precision, recall = (summed.sum(axis=0) / sizes.sum()).tolist()
    return precision, recall, 2 * precision * recall / (precision + recall)


def by_best_message(alike: Floats, cluster: Ints) -> Curve:
    """Each message joins the issue of the message before it that it is most alike."""
    before = np.where(np.tri(len(alike), k=-1, dtype=bool), alike, -np.inf)
    to, best = before.argmax(axis=1), before.max(axis=1)
    bars = np.sort(best[1:])[::-1]
    joins, found = [], []
    wanted = sorted({*JOINS, *range(90, MOST_JOINS + 1, 20)})
    # Of equal similarities all join or none: the bar is the lowest value that no more than so many reach.
    for bar in sorted({float(bars[count]) for count in wanted}, reverse=True):
        issue = np.arange(len(alike))
        for row in np.flatnonzero(best > bar).tolist():
            issue[row] = issue[to[row]]
        joins.append(int((best > bar).sum()))
        found.append(shares(issue, cluster))
    return Curve(np.array(joins), np.array(found))


def by_founder(alike: Floats, cluster: Ints) -> Curve:
    """Each message joins the issue whose founder it is most alike."""
    before = np.where(np.tri(len(alike), k=-1, dtype=bool), alike, -np.inf).max(axis=1)
    bars = np.quantile(before[1:], np.linspace(0.35, 0.96, 60))
    rows: dict[int, Floats] = {}
    for bar in np.unique(bars).tolist():
        issue = np.zeros(len(alike), np.int64)
        founders: list[int] = []
        for row in range(len(alike)):
            close = alike[row, founders]
            best = int(close.argmax()) if founders else -1
            if best < 0 or close[best] <= bar:
                issue[row] = row
                founders.append(row)
            else:
                issue[row] = founders[best]
        rows[len(alike) - len(founders)] = shares(issue, cluster)
    return Curve(np.array(sorted(rows)), np.array([rows[joins] for joins in sorted(rows)]))


def mean_f1(curve: Curve, sizes: Floats) -> float:
    return statistics.mean(b_cubed(curve.at(joins), sizes)[2] for joins in JOINS)


def described(curve: Curve, sizes: Floats) -> dict[str, object]:
    best = max(range(len(curve.joins)), key=lambda at: b_cubed(curve.shares[at], sizes)[2])
    precision, recall, f1 = b_cubed(curve.shares[best], sizes)
    return {
        "f1_at_joins": {joins: round(b_cubed(curve.at(joins), sizes)[2], 3) for joins in JOINS},
        "precision_at_joins": {joins: round(b_cubed(curve.at(joins), sizes)[0], 3) for joins in JOINS},
        "mean_f1": round(mean_f1(curve, sizes), 4),
        "best": {
            "f1": round(f1, 3), "precision": round(precision, 3), "recall": round(recall, 3),
            "joins": int(curve.joins[best]),
        },
    }  # fmt: skip


def ahead(one: Curve, other: Curve, sizes: Floats) -> dict[str, object]:
    """How much better one is than the other in F1 at equal joins, with 95 % intervals."""
    draws = np.random.default_rng(1).integers(0, len(sizes), (DRAWS, len(sizes)))
    counted = np.stack([np.bincount(draw, minlength=len(sizes)) for draw in draws]).astype(np.float64)

    def f1(curve: Curve, joins: int) -> Floats:
        summed = np.einsum("dc,cs->ds", counted, curve.at(joins)) / (counted @ sizes)[:, None]
        return np.asarray(2 * summed[:, 0] * summed[:, 1] / summed.sum(axis=1))

    differences = {joins: f1(one, joins) - f1(other, joins) for joins in JOINS}
    mean = np.mean(list(differences.values()), axis=0)
    return {
        "mean": round(mean_f1(one, sizes) - mean_f1(other, sizes), 4),
        "mean_interval": [round(q, 4) for q in np.quantile(mean, [0.025, 0.975])],
        "at_joins": {
            joins: round(b_cubed(one.at(joins), sizes)[2] - b_cubed(other.at(joins), sizes)[2], 3) for joins in JOINS
        },
    }


# ------------------------------------------------------------------------------------------------------ calibration


def calibration(messages: Messages, rows: npt.NDArray[np.uint64]) -> list[dict[str, object]]:
    """How much more often a similarity comes up between messages of one issue than between others, by bits alike."""
    bits = np.rint((bits_alike(rows) + 1) * BITS / 2).astype(np.int64)
    same: list[tuple[int, float]] = []
    for cluster in set(messages.every_cluster[messages.by_hand].tolist()):
        members = np.flatnonzero(messages.every_cluster == cluster)
        pairs = [(a, b) for at, a in enumerate(members) for b in members[at + 1 :]]
        same += [(int(bits[a, b]), 1 / len(pairs)) for a, b in pairs]
    districts = [set(re.findall("[A-Z][0-9]+[区县市]", text)) for text in messages.titles]
    topics = [set(re.findall(_TOPICS, text)) for text in messages.titles]
    other = [
        int(bits[a, b])
        for a in range(len(bits))
        for b in range(a)
        if districts[a] & districts[b] and topics[a] & topics[b]
        and (messages.every_cluster[a] < 0 or messages.every_cluster[a] != messages.every_cluster[b])
    ]  # fmt: skip
    table: list[dict[str, object]] = []
    edges = [0, 120, 128, 136, 144, 152, 160, 168, 176, 192, 208, 257]
    weights = sum(weight for _, weight in same)
    for low, high in pairwise(edges):
        of_one = sum(weight for value, weight in same if low <= value < high)
        of_two = sum(low <= value < high for value in other)
        # Half an observation more in each, so that nothing is impossible.
        ratio = ((of_one + 0.5) / (weights + 0.5)) / ((of_two + 0.5) / (len(other) + 0.5))
        table.append(
            {"bits_from": low, "one_issue": round(of_one, 2), "two": of_two, "centibans": round(100 * np.log10(ratio))}
        )
    return [{"clusters": round(weights), "pairs_of_two": len(other)}, *table]


def speed(texts: list[str]) -> dict[str, object]:
    """Processor time of `signatures`, the rewriting of unusual texts included."""
    whole = [text[:100] for text in texts if len(text) >= 100]

    def least_us(work: Callable[[], object]) -> float:
        spent = []
        for _ in range(7):
            before = time.process_time()
            work()
            spent.append(time.process_time() - before)
        return min(spent) * 1e6

    signatures(whole)
    return {
        "us_per_text_of_100_characters": round(least_us(lambda: signatures(whole)) / len(whole), 2),
        "us_per_message": round(least_us(lambda: signatures(texts)) / len(texts), 2),
        "normalised_alone_us_per_text_of_100_characters": round(
            least_us(lambda: [normalised(text) for text in whole]) / len(whole), 2
        ),
    }


def measure(path: Path) -> dict[str, object]:
    messages = read(path)
    texts, cluster = messages.texts, messages.cluster
    # The cluster left out has no messages, and counts for nothing.
    sizes = np.bincount(cluster[cluster >= 0], minlength=cluster.max() + 1).astype(np.float64)

    rivals: dict[str, Curve] = {}
    for name, weighed in (
        ("text", texts),
        ("title three times", [2 * f"{t}\n" + x for t, x in zip(messages.titles, texts, strict=True)]),
    ):
        for sublinear in (False, True):
            alike = tf_idf(weighed, ngram_range=(2, 4), sublinear_tf=sublinear)
            for link, curve_of in (("best message", by_best_message), ("founder", by_founder)):
                rivals[f"{name}, {'sublinear, ' if sublinear else ''}{link}"] = curve_of(alike, cluster)
    rival = max(rivals, key=lambda name: mean_f1(rivals[name], sizes))

    within, cosine = title_within(messages)
    gap = np.abs(messages.days[:, None] - messages.days[None, :])
    first_most = weighed_pairs(texts, idf=True)
    models = {
        "pairs, first most, idf": first_most,
        "pairs, first most": weighed_pairs(texts, idf=False),
        "title within text + cosine of 2-3-grams": within + cosine,
        "title within text + pairs, first most, idf": within + first_most,
        "BM25 of pairs": okapi(texts),
        "pairs, first most, idf, 30 % more within 90 days": first_most * (1 + 0.3 * np.exp(-gap / 90)),
    }
    curves = {name: by_best_message(alike, cluster) for name, alike in models.items()}
    best = max(curves, key=lambda name: mean_f1(curves[name], sizes))

    salted = [signatures(texts, salt=salt) for salt in range(SALTS)]
    signed = by_best_message(bits_alike(salted[0]), cluster)
    luck = [by_best_message(bits_alike(rows), cluster) for rows in salted]
    by_words: dict[str, object] = {}
    for words in (1, 2, 4, 8):
        tried = (
            [row[:, :words] for row in salted]
            if words <= WORDS
            else [np.hstack(salted[at : at + 2]) for at in range(0, SALTS, 2)]
        )
        of_words = [by_best_message(bits_alike(rows), cluster) for rows in tried]
        by_words[f"{words * 64} bits"] = {
            "mean_f1": round(statistics.mean(mean_f1(curve, sizes) for curve in of_words), 4),
            "best_f1": round(statistics.mean(max(b_cubed(s, sizes)[2] for s in curve.shares) for curve in of_words), 3),
        }
    means = [mean_f1(curve, sizes) for curve in luck]
    return {
        "messages": len(texts),
        "clusters": int((sizes > 0).sum()),
        "labelled": int(sizes.sum()),
        "rivals_mean_f1": {name: round(mean_f1(curve, sizes), 4) for name, curve in rivals.items()},
        "rival": {"settings": rival, **described(rivals[rival], sizes)},
        "models": {name: described(curve, sizes) for name, curve in curves.items()},
        "best_model": best,
        "signature": described(signed, sizes),
        "signature_founder": described(by_founder(bits_alike(salted[0]), cluster), sizes),
        "signature_with_other_salts": {
            "mean_f1": [round(statistics.mean(means), 4), round(min(means), 4), round(max(means), 4)],
            "best_f1": round(statistics.mean(max(b_cubed(s, sizes)[2] for s in curve.shares) for curve in luck), 3),
            "f1_at_joins": {
                joins: round(statistics.mean(b_cubed(curve.at(joins), sizes)[2] for curve in luck), 3)
                for joins in JOINS
            },
        },
        "signature_by_length": by_words,
        "best_model_ahead_of_rival": ahead(curves[best], rivals[rival], sizes),
        "signature_ahead_of_rival": ahead(signed, rivals[rival], sizes),
        "signature_ahead_of_best_model": ahead(signed, curves[best], sizes),
        "calibration": calibration(messages, salted[0]),
        "speed": speed(texts),
    }


def main() -> None:
    tell("quality_text", measure(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
