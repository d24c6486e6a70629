"""The score and the life of an incident (docs/contract.md) in plain Python: the oracle of the kernel.

A list of incidents, a double loop, dictionaries that forget nothing; as slow as it is plain.  :meth:`Definition.weigh`
is the score, a term a line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from streams.messages import SOURCES
from streams.pack import CityPack
from streams.pack_entries import Category

FIXED_POINT = 1 << 24
"""Centimetres a 1e-7 degree are rounded to this fraction, so that a distance is whole numbers only."""


FAR_E7 = 100_000, 20_000
"""Further than any radius of these tests reaches, east and north; for the double loop's patience."""


FAR_E7 = 100_000, 20_000
"""Further than any radius of these tests reaches, east and north; for the double loop's patience."""


@dataclass(frozen=True)
class Row:
    """One report.  ``where`` is (lon, lat) in 1e-7 degrees, or None."""

    source: int
    partition: int
    offset: int
    index: int
    mark_ms: int
    ingested_ms: int
    time_ms: int
    where: tuple[int, int] | None
    accuracy_cm: int
    category: int
    key: tuple[int, int]
    content: int = 0
    witness: str = ""
    confidence: float | None = None
    device: int = 0
    asset: int = 0
    address: int = 0
    signature: tuple[int, ...] = (0, 0, 0, 0)
    """Of its text; all zero without one."""
    cell: int = 0


@dataclass(frozen=True)
class Said:
    """One feedback message about the incident with that key."""

    id: int
    action: str
    group: str
    key: tuple[int, int]
    time_ms: int
    ingested_ms: int
    offset: int
    duplicate_of: str | None = None


STEPS = {
    "accept": ("accepted", {"suspected", "open"}),
    "dispatch": ("dispatched", {"suspected", "open", "accepted"}),
    "dispose": ("disposed", {"suspected", "open", "accepted", "dispatched"}),
    "close": ("closed", {"suspected", "open", "accepted", "dispatched", "disposed"}),
    "reject": ("rejected", {"suspected", "open", "accepted"}),
    "reopen": ("open", {"closed", "rejected"}),
}


@dataclass(frozen=True)
class Tick:
    """A source partition was read up to ``newest_ms``."""

    source: int
    partition: int
    newest_ms: int
    drained: bool


@dataclass(frozen=True)
class Open:
    """An incident."""

    key: tuple[int, int]
    category: int
    where: tuple[int, int] | None
    opened_ms: int
    first_ms: int
    last_ms: int
    updated_ms: int
    version: int = 1
    report_count: int = 1
    repeat_count: int = 0
    by_source: tuple[int, ...] = (0, 0, 0, 0)
    status: str = "open"
    ended_ms: int | None = None
    recurrence_of: int | None = None
    has_recurred: bool = False
    merged_into: str | None = None
    """The incident that goes on in its place."""
    witness_count: int = 1
    odds: int | None = None
    """Log-odds in thousandths; None where nobody knows."""
    accuracy_cm: int = 0
    """Of its anchor, as ``where`` and ``cell``."""
    cell: int = 0


@dataclass(frozen=True)
class Match:
    """An incident that a report is near, what speaks for both being one event, and how they would come together."""

    how: str
    score: int
    cm2: int
    opened_ms: int
    key: tuple[int, int]
    number: int
    allowed_cm: int
    same: str | None
    terms: dict[str, int]


@dataclass(frozen=True)
class Correction:
    """A report goes with another incident than it went with at first."""

    report: Row
    left: int
    left_score: int
    joined: Match
    gap_ms: int


@dataclass(frozen=True)
class Answer:
    """What the rule says of one report; ``incident`` is its place in order of founding."""

    outcome: str
    incident: int | None
    best: Match | None = None
    """The incident that it joined."""
    runner_up: Match | None = None
    gap_ms: int | None = None
    behind_ms: int | None = None
    recurrence_of: int | None = None
    is_confirmed: bool = False
    """The incident was suspected before."""
    is_loose: bool = False
    """It joined by nearness alone, and may yet go."""
    corrections: tuple[Correction, ...] = ()


IN_WINDOW, BEFORE_ITS_END, REOPENS, RECURS = "in its window", "before its end", "reopens", "recurs"
YEAR_MS = 366 * 86_400_000


@dataclass
class _Remembered:
    incident: int | None
    newest_ms: int
    origins: dict[tuple[int, int, int], int] = field(default_factory=dict)
    content: int = 0
    has_founded: bool = False


@dataclass
class _Witness:
    """Who saw an incident: when he was heard last, how far each of his reports was believed, and how many are left."""

    heard_ms: int
    odds: list[int | None]
    reports: int = 0


@dataclass(frozen=True)
class _Member:
    """A report of an incident; with ``until_ms`` it joined by nearness alone, and may go until then."""

    row: Row
    until_ms: int | None = None
    score: int = 0
    """What it joined with, but for the text."""


@dataclass
class _Inside:
    """What nobody is told of an incident."""

    source: int
    members: list[_Member] = field(default_factory=list)
    texts: list[tuple[int, ...]] = field(default_factory=list)
    places: set[tuple[str, int]] = field(default_factory=set)
    doubts: list[int] = field(default_factory=list)
    """Whatever was said of it below even, which stays also where who said it goes."""


class Definition:
    """Decides on reports one by one.

    ``text_points`` are what texts say of whose signatures so many of 256 bits agree.
    """

    def __init__(
        self,
        pack: CityPack,
        *,
        lateness_s: int,
        remember_s: int,
        text_points: Sequence[int],
        one_clock: bool = False,
    ) -> None:
        self.categories = pack.categories
        self.sources = [pack.sources[source] for source in SOURCES]
        self.similarity = {
            pair: related.similarity
            for related in pack.related
            for pair in ((related.a, related.b), (related.b, related.a))
        }
        self.text_points = text_points
        self.lateness_ms = lateness_s * 1000
        self.remember_ms = remember_s * 1000
        self.one_clock = one_clock
        self.incidents: list[Open] = []
        self.marks: dict[tuple[int, int], tuple[int, bool]] = {}
        self.watermark_ms: int | None = None
        self._inside: list[_Inside] = []
        self._remembered: dict[tuple[object, ...], _Remembered] = {}
        self._heard: dict[tuple[object, ...], dict[int, int]] = {}
        self._applied: dict[tuple[object, ...], int] = {}
        self._witnesses: dict[tuple[int, object], _Witness] = {}
        self._counted: dict[int, list[_Witness]] = {}

    def hear(self, said: Said) -> tuple[str, int | None]:
        """What becomes of feedback, and the incident it is about."""
        now = max(said.ingested_ms, -(2**62) if self.watermark_ms is None else self.watermark_ms)
        horizon_ms = now - self.remember_ms
        heard = self._heard.setdefault((said.group, said.id, said.key), {})
        if heard.get(said.offset, horizon_ms - 1) >= horizon_ms:
            return "redelivered", None
        heard[said.offset] = said.ingested_ms
        about = [
            number
            for number, one in enumerate(self.incidents)
            if one.key == said.key and self.categories[one.category].group == said.group
        ]
        if not about:
            return "unknown_incident", None
        (number,) = about
        old = self.incidents[number]
        if self._applied.get((said.group, said.id, said.key), horizon_ms - 1) >= horizon_ms:
            return "repeated", number
        status, may_follow = STEPS[said.action]
        if old.status not in may_follow:
            return "illegal_transition", number
        self._applied[(said.group, said.id, said.key)] = said.ingested_ms
        self.incidents[number] = replace(
            old,
            status=status,
            ended_ms=said.time_ms if status in ("closed", "rejected") else None,
            merged_into=said.duplicate_of if status in ("closed", "rejected") else None,
            version=old.version + 1,
            updated_ms=said.ingested_ms,
        )
        return "applied", number

    def tick(self, tick: Tick) -> None:
        self._mark(tick.source, tick.partition, tick.newest_ms, tick.drained)

    def decide(self, row: Row) -> Answer:
        self._mark(row.source, row.partition, row.mark_ms, False)
        assert self.watermark_ms is not None
        now = self.watermark_ms
        category = self.categories[row.category]
        behind_ms = now - row.time_ms

        horizon_ms = now - self.remember_ms
        remembered = self._remembered.get((category.group, row.key))
        origin = (row.source, row.partition, row.offset, row.index)
        if remembered is not None and remembered.newest_ms >= horizon_ms:
            applied_ms = remembered.origins.get(origin)
            if applied_ms is not None and (applied_ms >= horizon_ms or origin == next(iter(remembered.origins))):
                return Answer("redelivered", remembered.incident)
            remembered.origins[origin] = row.ingested_ms
            remembered.newest_ms = max(remembered.newest_ms, row.ingested_ms)
            amends = 0 not in (row.content, remembered.content) and row.content != remembered.content
            remembered.content = row.content or remembered.content
            if remembered.incident is not None:
                old = self.incidents[remembered.incident]
                if not amends:
                    self.incidents[remembered.incident] = replace(old, repeat_count=old.repeat_count + 1)
                    return Answer("repeat", remembered.incident)
                self._amend(remembered.incident, row, has_founded=remembered.has_founded)
                return Answer("amended", remembered.incident)
            if not amends or not category.event:
                return Answer("amended" if amends else "repeat", None)
        else:
            remembered = _Remembered(None, row.ingested_ms, {origin: row.ingested_ms}, row.content)
            self._remembered[(category.group, row.key)] = remembered
        if not category.event:
            return Answer("not_an_event", None)

        is_late = row.time_ms < now - self.lateness_ms
        near = sorted(self._near(row, now), key=_first_best)
        candidates = [match for match in near if match.how != RECURS]
        past = next((match for match in near if match.how == RECURS and self._is_enough(match, match.score)), None)
        best = candidates[0] if candidates else None
        others = candidates[1:]
        if best is not None:
            match = self.categories[self.incidents[best.number].category].match
            busy = -(log_points(len(candidates)) * match.busy_percent // 100)
            rival = rival_points(others[0].score) * match.rival_percent // 100 if others else 0
            best = replace(best, score=best.score + busy + rival, terms=best.terms | {"busy": busy, "rival": rival})
        may_doubt = is_loose = False
        corrections: list[Correction] = []
        if best is not None and self._is_enough(best, best.score):
            number = best.number
            outcome = "reopened" if best.how == REOPENS else "joined"
            old = self.incidents[number]
            if best.how == REOPENS:
                may_doubt = old.status == "rejected"
                self.incidents[number] = old = replace(old, status="open", ended_ms=None)
            gap_ms = abs(row.time_ms - old.last_ms)
            rethink_ms = round(self.categories[old.category].match.rethink_s * 1000)
            is_loose = best.same is None and best.how == IN_WINDOW and rethink_ms > 0
            member = _Member(row, now + rethink_ms if is_loose else None, best.score - best.terms["text"])
            self._join(number, member, row.ingested_ms, horizon_ms)
            answer = Answer("", number, best, others[0] if others else None, gap_ms)
        else:
            number = len(self.incidents)
            outcome = "opened"
            t = row.time_ms
            made = Open(self._key_for(row), row.category, row.where, t, t, t, row.ingested_ms)
            made = replace(made, accuracy_cm=row.accuracy_cm, cell=row.cell)
            past_number = None
            if past is not None:
                past_number = past.number
                self.incidents[past_number] = replace(self.incidents[past_number], has_recurred=True)
            self.incidents.append(replace(made, version=0, report_count=0, recurrence_of=past_number, witness_count=0))
            self._inside.append(_Inside(row.source))
            self._join(number, _Member(row), row.ingested_ms, horizon_ms)
            remembered.has_founded = may_doubt = True
            answer = Answer("", number, None, best, recurrence_of=past_number)
        remembered.incident = number
        if any(row.signature) and len(self._inside[number].texts) < 2:
            self._inside[number].texts.append(row.signature)
        if best is not None and answer.best is None:
            corrections = self._think_again(best.number, number, row, now)
        if may_doubt and self._is_doubtful(self.incidents[number]):
            self.incidents[number] = replace(self.incidents[number], status="suspected")
        return replace(
            answer,
            outcome="late" if is_late else outcome,
            behind_ms=behind_ms,
            is_confirmed=self._confirm(number),
            is_loose=is_loose,
            corrections=tuple(corrections),
        )

    def _is_enough(self, match: Match, score: int) -> bool:
        return self.categories[self.incidents[match.number].category].match.prior is None or score >= 0

    def _join(self, number: int, member: _Member, updated_ms: int, horizon_ms: int) -> None:
        """A report is one of an incident's."""
        row, old, inside = member.row, self.incidents[number], self._inside[number]
        inside.members.append(member)
        changed = replace(
            old,
            first_ms=min(old.first_ms, row.time_ms),
            last_ms=max(old.last_ms, row.time_ms),
            updated_ms=updated_ms,
            version=old.version + 1,
            report_count=old.report_count + 1,
            by_source=_counted(old.by_source, row.source),
        )
        # The anchor: whoever is at most half as vague knows better.
        if row.where is not None and 2 * row.accuracy_cm <= old.accuracy_cm != 0:
            changed = replace(changed, where=row.where, accuracy_cm=row.accuracy_cm, cell=row.cell)
        self.incidents[number] = changed
        if row.where is not None and member.until_ms is None:
            inside.places |= _places(row)
        self._hear(number, row, horizon_ms)

    def _think_again(self, left: int, joined: int, row: Row, now: int) -> list[Correction]:
        """Loose reports of an incident, the latest first, that suit the one just founded better."""
        corrections = []
        category = self.categories[row.category]
        horizon_ms = now - self.remember_ms
        for member in reversed(list(self._inside[left].members)):
            its = member.row
            if member.until_ms is None or member.until_ms < now or its.ingested_ms < horizon_ms:
                continue
            new = self.incidents[joined]
            if abs(its.time_ms - new.opened_ms) > round(category.window_s * 1000):
                continue
            match = self.weigh(
                its,
                joined,
                IN_WINDOW,
                gap_ms=abs(its.time_ms - new.opened_ms),
                horizon_ms=horizon_ms,
                alone=True,
                measured_from=row.where,
            )
            if match is None or match.score < max(member.score + category.match.rethink, 0):
                continue
            corrections.append(Correction(its, left, member.score, match, abs(its.time_ms - new.last_ms)))
            self._leave(left, member, row.ingested_ms)
            self._join(joined, _Member(its), row.ingested_ms, horizon_ms)
            self._remembered[category.group, its.key].incident = joined
        return corrections

    def _leave(self, number: int, member: _Member, updated_ms: int) -> None:
        """A report is no longer one of an incident's; where it is anchored and what texts it has stay."""
        old, inside = self.incidents[number], self._inside[number]
        inside.members.remove(member)
        times = [one.row.time_ms for one in inside.members]
        by_source = list(old.by_source)
        by_source[member.row.source] -= 1
        self.incidents[number] = replace(
            old,
            first_ms=min(times),
            last_ms=max(times),
            updated_ms=updated_ms,
            version=old.version + 1,
            report_count=old.report_count - 1,
            by_source=tuple(by_source),
        )
        row = member.row
        witness = self._witnesses[number, (row.source, row.witness) if row.witness else row]
        witness.reports -= 1
        if not witness.reports:
            self._counted[number] = [one for one in self._counted[number] if one is not witness]
            del self._witnesses[number, (row.source, row.witness) if row.witness else row]
            self._believe(number)

    def _amend(self, number: int, row: Row, *, has_founded: bool) -> None:
        """The report of an incident says something else; what founded it says what it is, and where if nobody knew."""
        old = self.incidents[number]
        old = replace(old, version=old.version + 1, updated_ms=row.ingested_ms)
        if has_founded:
            category = row.category if self.categories[row.category].event else old.category
            old = replace(old, category=category)
            if old.where is None and row.where is not None:
                old = replace(old, where=row.where, accuracy_cm=row.accuracy_cm, cell=row.cell)
        self.incidents[number] = old
        if has_founded:
            self._confirm(number)

    def _is_heard(self, number: int, row: Row, horizon_ms: int) -> bool:
        """Whether the report's witness has spoken of the incident, and is remembered."""
        known = self._witnesses.get((number, (row.source, row.witness))) if row.witness else None
        return known is not None and known.heard_ms >= horizon_ms

    def _hear(self, number: int, row: Row, horizon_ms: int) -> None:
        """Count the report's witness, unless he was, and believe all of them together."""
        odds = self._odds(row)
        who = (row.source, row.witness) if row.witness else row
        known = self._witnesses.get((number, who))
        if known is None or known.heard_ms < horizon_ms:
            known = self._witnesses[number, who] = _Witness(row.ingested_ms, [])
            self._counted.setdefault(number, []).append(known)
        known.heard_ms = max(known.heard_ms, row.ingested_ms)
        known.odds.append(odds)
        known.reports += 1
        if odds is not None and odds < 0:
            self._inside[number].doubts.append(odds)
        self._believe(number)

    def _believe(self, number: int) -> None:
        """All witnesses of an incident together."""
        best = [most(witness.odds) for witness in self._counted[number]]
        given = [*self._inside[number].doubts, *(one for one in best if one is not None)]
        even = [one for one in given if one >= 0]
        together = sum(even) if even else most(given)
        self.incidents[number] = replace(self.incidents[number], witness_count=len(best), odds=together)

    def _odds(self, row: Row) -> int | None:
        """How far one report is believed."""
        category, source = self.categories[row.category], self.sources[row.source]
        given = [category.confidence.get(source.name, source.confidence), row.confidence]
        said = [round(confidence, 3) for confidence in given if confidence is not None]
        return log_odds(min(said)) if said else None

    def _is_doubtful(self, incident: Open) -> bool:
        least = self.categories[incident.category].confirm_below
        return least is not None and incident.odds is not None and incident.odds < log_odds(least)

    def _confirm(self, number: int) -> bool:
        incident = self.incidents[number]
        if incident.status != "suspected" or self._is_doubtful(incident):
            return False
        self.incidents[number] = replace(incident, status="open")
        return True

    def _key_for(self, row: Row) -> tuple[int, int]:
        """The report's key, or where an incident of its group has that, the next that none has."""
        group = self.categories[row.category].group
        taken = {one.key for one in self.incidents if self.categories[one.category].group == group}
        hi, lo = row.key
        while (hi, lo) in taken:
            lo = mixed(lo + 1)
        return hi, lo

    def _near(self, row: Row, now: int) -> list[Match]:
        """Whatever incidents the report may join, reopen or be a recurrence of."""
        if row.where is None:
            return []
        group = self.categories[row.category].group
        found = []
        for number, incident in enumerate(self.incidents):
            if incident.where is None or self.categories[incident.category].group != group:
                continue
            if not row.asset and any(
                abs(here - there) > far for here, there, far in zip(row.where, incident.where, FAR_E7, strict=True)
            ):
                continue
            same = self._same_place(row, number, distance_cm2(row.where, incident.where))
            how = self._how(incident, row.time_ms, now - self.lateness_ms, is_same=same is not None)
            if how is None:
                continue
            gap_ms = 0
            if how in (IN_WINDOW, BEFORE_ITS_END):
                over_ms = incident.last_ms if incident.ended_ms is None else max(incident.last_ms, incident.ended_ms)
                gap_ms = max(0, row.time_ms - over_ms, incident.first_ms - row.time_ms)
            elif how == REOPENS:
                assert incident.ended_ms is not None
                gap_ms = row.time_ms - incident.ended_ms
            match = self.weigh(row, number, how, gap_ms=gap_ms, horizon_ms=now - self.remember_ms)
            if match is not None:
                found.append(match)
        return found

    def weigh(
        self,
        row: Row,
        number: int,
        how: str,
        *,
        gap_ms: int,
        horizon_ms: int,
        alone: bool = False,
        measured_from: tuple[int, int] | None = None,
    ) -> Match | None:
        """The score of a report and an incident, None where they are too far apart.

        ``alone``: by the founding report only, and without the texts.  ``measured_from``: the place whose latitude says
        how long a degree is, if not the report's.
        """
        incident, inside = self.incidents[number], self._inside[number]
        category = self.categories[incident.category]
        match = category.match
        assert row.where is not None
        assert incident.where is not None
        cm2 = distance_cm2(row.where, incident.where, measured_from)
        vague_cm = max(row.accuracy_cm, incident.accuracy_cm)
        allowed_cm = cm(category.radius_m) + min(match.sigmas * vague_cm, cm(category.accuracy_cap_m))
        same = self._same_place(row, number, cm2)
        if cm2 > allowed_cm**2 and (same != "asset" or alone):
            return None

        variance_cm2 = max(row.accuracy_cm**2 + incident.accuracy_cm**2 + cm(match.spread_m) ** 2, 1)
        decay_ms = round(1000 * (match.decay_s if same is None else match.same_place_decay_s))
        span_ms = 0 if alone else incident.last_ms - incident.first_ms
        further = 0 if alone else min(incident.report_count - 1, 9)
        gap_percent = match.gap_percent + match.rhythm_percent * further
        is_again = how != REOPENS and self._is_heard(number, row, horizon_ms)
        terms = {
            "nearness": round(-100 * math.log10(2 * math.pi * match.alike_km2 * 1e-10)) - log_points(variance_cm2),
            "distance": 0 if same == "asset" else -(cm2 * 21_715 // (variance_cm2 * 1000)),
            "gap": -(gap_points(gap_ms, decay_ms + span_ms) * gap_percent // 100),
            "category": self._likeness(self.categories[row.category].code, category),
            "sources": match.pairs.get((SOURCES[inside.source], SOURCES[row.source]), 0),
            "same_place": 0 if same is None else match.same_place,
            "text": 0 if alone else self._text(row.signature, inside.texts) * match.text_percent // 100,
            "again": match.again.get(SOURCES[row.source], 0) if is_again else 0,
            "prior": (match.prior or 0) + (match.reopening if how == REOPENS else 0),
            "busy": 0,
            "rival": 0,
        }
        return Match(how, sum(terms.values()), cm2, incident.opened_ms, incident.key, number, allowed_cm, same, terms)

    def _likeness(self, code: str, category: Category) -> int:
        """What a report of one category says of an incident of the other."""
        if code == category.code:
            return 0
        similarity = self.similarity.get((code, category.code), category.match.unrelated)
        return max(round(100 * math.log10(similarity)), -10_000) if similarity else -10_000

    def _same_place(self, row: Row, number: int, cm2: int) -> str | None:
        """What tells that a report is at an incident's place, the surest."""
        for kind, key in (("asset", row.asset), ("device", row.device), ("address", row.address)):
            if key and (kind, key) in self._inside[number].places:
                return kind
        match = self.categories[self.incidents[number].category].match
        return "spot" if cm2 <= cm(match.same_place_m) ** 2 else None

    def _text(self, signature: tuple[int, ...], texts: Sequence[tuple[int, ...]]) -> int:
        """What the likest of an incident's texts says."""
        if not any(signature) or not texts:
            return 0
        return max(self.text_points[256 - _differing_bits(signature, text)] for text in texts)

    def _how(self, incident: Open, time_ms: int, held_from: int, *, is_same: bool) -> str | None:
        """How a report of that time, near the incident, would come together with it; None if not at all."""
        if incident.merged_into is not None:
            return None
        category = self.categories[incident.category]
        window_ms = round(category.window_s * 1000)
        if is_same:
            window_ms = max(window_ms, round(category.match.same_place_window_s * 1000))
        reopen_ms = round(category.reopen_s * 1000)
        window_start, window_end = incident.last_ms - window_ms, incident.last_ms + window_ms
        in_window = window_start <= time_ms <= window_end and window_end >= held_from
        if incident.ended_ms is None:
            if in_window:
                return IN_WINDOW
            until = window_end + reopen_ms
            recurs = window_end < time_ms <= until and until >= held_from and not incident.has_recurred
            return RECURS if recurs else None
        if time_ms <= incident.ended_ms:
            in_hand = window_start <= time_ms and incident.ended_ms >= held_from and not incident.has_recurred
            return BEFORE_ITS_END if in_window or in_hand else None
        until = incident.ended_ms + reopen_ms
        if incident.has_recurred or until + YEAR_MS < max(time_ms, held_from):
            return None
        return REOPENS if time_ms <= until else RECURS

    def _mark(self, source: int, partition: int, newest_ms: int, drained: bool) -> None:
        clock = (0, 0) if self.one_clock else (source, partition)
        before_ms, _ = self.marks.get(clock, (newest_ms, False))
        self.marks[clock] = (max(before_ms, newest_ms), drained)
        waiting = [mark_ms for mark_ms, is_drained in self.marks.values() if not is_drained]
        now = min(waiting) if waiting else max(mark_ms for mark_ms, _ in self.marks.values())
        self.watermark_ms = now if self.watermark_ms is None else max(self.watermark_ms, now)


def log_odds(confidence: float) -> int:
    """In thousandths; nobody is believed more than 0.99 or less than 0.01."""
    share = min(max(confidence, 0.01), 0.99)
    return round(1000 * math.log(share / (1 - share)))


def most(odds: Sequence[int | None]) -> int | None:
    """The largest that is known."""
    return max((one for one in odds if one is not None), default=None)


def mixed(number: int) -> int:
    """The finaliser of MurmurHash3, 64 bits."""
    mask = 2**64 - 1
    number &= mask
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        number = (number ^ number >> 33) * factor & mask
    return number ^ number >> 33


def _counted(by_source: tuple[int, ...], source: int) -> tuple[int, ...]:
    return tuple(count + (number == source) for number, count in enumerate(by_source))


def cm(metres: float) -> int:
    return round(metres * 100)


def log_points(number: int) -> int:
    """100 · log10 by the eight first bits of a number, in thousandths, rounded down."""
    shift = number.bit_length() - 8
    first = number >> shift if shift > 0 else number << -shift
    return (round(100_000 * math.log10(first)) + shift * 30_103) // 1000


def gap_points(gap_ms: int, usual_ms: int) -> int:
    """100 · log10(1 + gap / usual), in 128ths."""
    return log_points(128 + 128 * gap_ms // max(usual_ms, 1)) - log_points(128)


def rival_points(points: int) -> int:
    """What is left of 1 where something else is 10^(points / 100) times as likely as nothing."""
    if points < -300:
        return 0
    if points > 600:
        return -points
    return -round(100 * math.log10(1 + 10 ** (points / 100)))


def _first_best(match: Match) -> tuple[object, ...]:
    return -match.score, match.cm2, match.opened_ms, match.key


def _places(row: Row) -> set[tuple[str, int]]:
    keys = {"device": row.device, "asset": row.asset, "address": row.address}
    return {(kind, key) for kind, key in keys.items() if key}


def _differing_bits(one: Sequence[int], other: Sequence[int]) -> int:
    return sum((a ^ b).bit_count() for a, b in zip(one, other, strict=True))


def distance_cm2(report: tuple[int, int], anchor: tuple[int, int], measured_from: tuple[int, int] | None = None) -> int:
    """Square of the distance in centimetres, east and north each rounded, by the degrees of the report's latitude."""
    east, north = (
        (2 * (there - here) * scale + FIXED_POINT) // (2 * FIXED_POINT)
        for here, there, scale in zip(report, anchor, scales((measured_from or report)[1]), strict=True)
    )
    return east * east + north * north


@lru_cache(maxsize=8)
def scales(lat_e7: int) -> tuple[int, int]:
    """Centimetres a 1e-7 degree of longitude and of latitude, times :data:`FIXED_POINT`; textbook WGS-84."""
    a_m, f = 6_378_137.0, 1 / 298.257223563
    e2 = f * (2 - f)
    phi = math.radians(lat_e7 * 1e-7)
    w = math.sqrt(1 - e2 * math.sin(phi) ** 2)
    east_m = a_m / w * math.cos(phi) * math.pi / 180
    north_m = a_m * (1 - e2) / w**3 * math.pi / 180
    return round(east_m * 1e-5 * FIXED_POINT), round(north_m * 1e-5 * FIXED_POINT)
