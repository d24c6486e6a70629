"""Writes what was fitted into a catalogue, so that a person can read and overrule it.

The text is edited, not made anew: categories, labels, comments and their order stay.  What changes is

- ``radius_m`` and ``window_s`` of the categories that have a row of their own, each in its own line;
- their ``[category.match]``, which holds what differs from ``[match]``;
- ``[[related]]``, towards the end: how alike the categories of a group are by their labels, where no person said it;
- ``[match]``, at the end: what holds for all others.

A catalogue can be written in more ways than this knows, so what comes out is read again and compared.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from streams.evaluation import NONE
from streams.fitting import Fitted, with_row
from streams.messages import SOURCES
from streams.pack import CityPack, PackError, parse_pack
from streams.pack_entries import CATALOGUE, Category, Match, Related

FITTED = "# Fitted by `citybrain fit`"
"""How every comment begins that stands here; the next fit replaces it."""

_HEADER = re.compile(r"^\s*(\[\[?)\s*([^\]#]+?)\s*\]\]?\s*(?:#.*)?$")

_MEANING = {
    "prior": "points before any evidence, against 0, at which a report joins",
    "spread_m": "how far apart reports of one event lie, beyond their inaccuracy",
    "alike_km2": "how many other events of the kind a square kilometre has at a time",
    "decay_s": "the mean time between reports of one event",
    "same_place_m": "up to here two reports are at the same place",
    "same_place": "points for the same place",
    "same_place_window_s": "how long after the last report one at the same place still joins",
    "same_place_decay_s": "the mean time between reports of one event at the same place",
    "text_percent": "how much of the evidence of the texts counts",
    "busy_percent": "how much weighs that there are other incidents near",
    "rival_percent": "how much weighs that another incident is nearly as likely",
    "gap_percent": "how much weighs the time between reports",
    "rhythm_percent": "by how much more for each report but the first",
    "unrelated": "similarity of two categories of the group that no [[related]] names",
}

_KEPT = ("reopening", "sigmas", "rethink", "rethink_s")
"""What a fit leaves as it is."""
_OWN = ("same_place_window_s",)
"""What, as radius and window, only labels of a category may change."""


class WritingError(ValueError):
    """The catalogue is laid out in a way that this cannot edit."""


def fitted_catalogue(files: Mapping[str, bytes], pack: CityPack, fitted: Fitted, dial: float) -> bytes:
    """The pack's catalogue with what was learnt.

    Raises `WritingError` where what comes out does not say that.
    """
    weighed = _with_match(files[CATALOGUE])
    categories = {
        one.code: fitted.category(one) for one in pack.categories if one.group in fitted.rows or one.code in weighed
    }
    labels = sum(fitted.labels.values())
    reasons = {
        code: f"{fitted.labels.get(one.group, 0)} labelled reports of the group {one.group}"
        for code, one in categories.items()
    }
    common = with_row(pack.categories[0], fitted.common).match
    reason = f"{labels} labelled reports of all groups, dial {dial:g}"
    related = {one: _events_of(fitted, one) for one in fitted.related()}
    text = written(files[CATALOGUE].decode("utf-8-sig"), common, categories, reasons, reason, related)
    made = {**files, CATALOGUE: text.encode()}
    try:
        read = parse_pack(made)
    except PackError as error:
        raise WritingError(
            f"cannot be edited, what comes of it is no catalogue ({error.faults[0]}); {_REMEDY}"
        ) from error
    for was, now in zip(pack.categories, read.categories, strict=True):
        if _plain(now) != _plain(fitted.category(was)):
            raise WritingError(f"category {was.code!r} is written in a way that cannot be edited; {_REMEDY}")
    if {_pair(one): one.similarity for one in read.related} != {
        _pair(one): one.similarity for one in (*fitted.labelled.pack.related, *related)
    }:
        raise WritingError("its [[related]] are written in a way that cannot be edited; write each as a table")
    return made[CATALOGUE]


def _with_match(catalogue: bytes) -> set[str]:
    """The categories that have a ``[category.match]``: without a row of their own they are weighed as all are."""
    tables = tomllib.loads(catalogue.decode("utf-8-sig")).get("category", [])
    return {str(one["code"]) for one in tables if "match" in one}


def fitted_pairs(catalogue: bytes) -> set[frozenset[str]]:
    """The pairs of categories in ``[[related]]`` that an earlier fit wrote: those are learnt anew."""
    lines = catalogue.decode("utf-8-sig").splitlines()
    pairs = set()
    for start, end in _fitted_related(lines):
        codes = [found[1] for line in lines[start:end] if (found := _EITHER.match(line))]
        pairs.add(frozenset(codes))
    return pairs


def _fitted_related(lines: Sequence[str]) -> list[tuple[int, int]]:
    """First line and the line after the last of each ``[[related]]`` beneath a comment of ours."""
    return [
        (start, end)
        for name, start, end in _tables(lines)
        if name == "related" and start and lines[start - 1].startswith(FITTED)
    ]


def _pair(related: Related) -> frozenset[str]:
    return frozenset((related.a, related.b))


def _events_of(fitted: Fitted, related: Related) -> str:
    """On what a similarity rests, in one line."""
    labelled = fitted.labelled
    events = [
        set(labelled.cluster[labelled.reports.category == labelled.pack.category_index(code)].tolist()) - {NONE}
        for code in (related.a, related.b)
    ]
    both = len(events[0] & events[1])
    return f"{both} of {len(events[0] | events[1])} labelled events have reports of both"


def _plain(category: Category) -> Category:
    """Without pairs and sources of no points: a pack may name them or not."""
    pairs = {pair: points for pair, points in category.match.pairs.items() if points}
    again = {source: points for source, points in category.match.again.items() if points}
    return replace(category, match=replace(category.match, pairs=pairs, again=again))


_REMEDY = "write each [[category]] and [category.match] as a table with a line for each key"


def written(
    text: str,
    common: Match,
    fitted: Mapping[str, Category],
    reasons: Mapping[str, str],
    reason: str,
    related: Mapping[Related, str],
) -> str:
    """The catalogue ``text`` with ``common`` in ``[match]``, and the categories of ``fitted`` by their code.

    ``reasons`` say, by code, on what a category's values rest, in one line; ``reason`` that of ``common``; ``related``
    has that of each pair with a similarity of its own.
    """
    lines = text.splitlines()
    former = {at for start, end in _fitted_related(lines) for at in range(start, end)}
    lines = [line for at, line in enumerate(lines) if at not in former and not line.startswith(FITTED)]
    tables = list(_tables(lines))
    gone: set[int] = set()
    changed: dict[int, str] = {}
    added: dict[int, list[str]] = {}
    kept_common: list[str] = []
    for number, (name, start, end) in enumerate(tables):
        if name in ("match", "match.pairs", "match.again"):
            gone.update(range(start, end))
            kept_common += _kept(lines[start:end], (*_KEPT, *_OWN))
        if name != "category":
            continue
        code = next((found[1] for line in lines[start:end] if (found := _CODE.match(line))), None)
        category = fitted.get(code or "")
        if category is None:
            continue
        kept: list[str] = []
        last = end
        for inner, inner_start, inner_end in tables[number + 1 :]:
            if not inner.startswith("category."):
                break
            if inner in ("category.match", "category.match.pairs", "category.match.again"):
                gone.update(range(inner_start, inner_end))
                kept += _kept(lines[inner_start:inner_end], _KEPT)
            else:
                last = inner_end
        for key, value in (("radius_m", category.radius_m), ("window_s", category.window_s)):
            at = next((at for at in range(start + 1, end) if re.match(rf"\s*{key}\s*=", lines[at])), None)
            line = f"{key} = {_shown(value)}"
            if at is None:
                added.setdefault(start, []).append(line)
            else:
                _, hash_, comment = lines[at].partition("#")
                changed[at] = f"{line}  #{comment}" if hash_ else line
        added.setdefault(last - 1, []).extend(_own_lines(category, common, kept, reasons[category.code]))
    out: list[str] = []
    for at, line in enumerate(lines):
        # Of the empty lines around what is gone, one is enough.
        if at not in gone and (line.strip() or at - 1 not in gone or not out or out[-1].strip()):
            out.append(changed.get(at, line))
        out += added.get(at, [])
    while out and not out[-1].strip():
        out.pop()
    for one, why in related.items():
        pair = [f'a = "{one.a}"', f'b = "{one.b}"', f"similarity = {_shown(one.similarity)}"]
        out += ["", f"{FITTED}: {why}", "[[related]]", *pair]
    out += ["", f"{FITTED}: {reason}", "[match]"]
    out += [_value_line(name, getattr(common, name)) for name in _MEANING if name not in _OWN]
    out += [*kept_common, *_pair_lines("match", common, None)]
    return "\n".join(out) + "\n"


_EITHER = re.compile(r"""\s*[ab]\s*=\s*["']([^"']*)["']""")
_CODE = re.compile(r"""\s*code\s*=\s*["']([^"']*)["']""")


def _tables(lines: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """Name, first line and the line after the last of each table.

    What stands between a table's last value and the next header speaks of that one.
    """
    headers = [(at, found[2].replace(" ", "")) for at, line in enumerate(lines) if (found := _HEADER.match(line))]
    for (start, name), (until, _) in zip(headers, [*headers[1:], (len(lines), "")], strict=True):
        end = until
        while end > start + 1 and (not lines[end - 1].strip() or lines[end - 1].lstrip().startswith("#")):
            end -= 1
        yield name, start, end


def _kept(lines: Sequence[str], names: Sequence[str]) -> list[str]:
    return [line for line in lines if any(re.match(rf"\s*{name}\s*=", line) for name in names)]


def _own_lines(category: Category, common: Match, kept: Sequence[str], reason: str) -> list[str]:
    values = [
        _value_line(name, getattr(category.match, name))
        for name in _MEANING
        if name in _OWN or getattr(category.match, name) != getattr(common, name)
    ]
    pairs = _pair_lines("category.match", category.match, common)
    if not (values or kept or pairs):
        return [f"{FITTED}: {reason}; as [match] has it"]
    return [f"{FITTED}: {reason}; what is not here is as [match] has it", "[category.match]", *values, *kept, *pairs]


def _value_line(name: str, value: float) -> str:
    return f"{name} = {_shown(value)}  # {_MEANING[name]}"


def _pair_lines(table: str, match: Match, beneath: Match | None) -> list[str]:
    """The tables within one of ``[match]``: pairs of sources, and who reports again."""
    lines = []
    for one in SOURCES:
        for other in SOURCES:
            points = match.pairs.get((one, other), 0)
            under = 0 if beneath is None else beneath.pairs.get((one, other), 0)
            if points != under:
                lines.append(f"{one}-{other} = {points}")
    if lines:
        lines.insert(0, f"[{table}.pairs]  # points by the sources of the founding report and of the one that joins")
    before = {} if beneath is None else beneath.again
    again = [
        f"{source} = {match.again.get(source, 0)}"
        for source in SOURCES
        if match.again.get(source, 0) != before.get(source, 0)
    ]
    if again:
        lines += [f"[{table}.again]  # points where who reports it has reported it before, by source", *again]
    return lines


def _shown(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))
