"""What callers and grid workers say of an event: where it is, what is to be seen, in each one's own words.

An event has a few details of its own, the same for all who tell of it.  Each teller leaves some out, takes his own
words for the others, names what stands nearby, and gets some of it wrong.  How often is data (`streams.error_model`),
and so are the words (`streams.simulated_words`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from geo.plane import distance_m
from streams.error_model import CallerTextModel, ErrorModel, TextModel, WorkerTextModel
from streams.pack import Category, Device
from streams.simulated_addresses import numeral
from streams.simulated_chance import Chance
from streams.simulated_city import SimulatedCity, moved
from streams.simulated_landmarks import Landmark, Landmarks
from streams.simulated_words import Manner, Thing, Vocabulary, vocabulary

_TELLING, _DETAILS = 0x7E11, 0xDE7A
"""Set the chance of tellers and of details apart from all other chance of the same seed."""
_LONGEST_ADDRESS = 60
_SIDES = 4


@dataclass(frozen=True, slots=True)
class Detail:
    """One thing that can be seen of an event."""

    aspect: int
    choice: int
    small: int
    """How many, where a number of 2 to 9 belongs into the words."""
    large: int
    """The same of 10 to 90."""


@dataclass(slots=True)
class Told:
    """A text, what was put into the field for the asset beside it, and what of the model came true in it."""

    text: str = ""
    asset_id: str | None = None
    errors: tuple[str, ...] = ()
    traits: list[str] = field(default_factory=list)
    """Names of shares of the model, each as often as it came true."""


class Texts:
    """Speaks for the people of a simulated city.

    It has a chance of its own: what is said changes nothing of what happens and of who reports it.
    """

    def __init__(self, city: SimulatedCity, model: ErrorModel, seed: int) -> None:
        self._words = vocabulary()
        spots = model.landmarks
        self._landmarks = Landmarks(
            city, self._words.landmarks, seed, spacing_m=spots.spacing_m, jitter=spots.jitter
        )  # fmt: skip
        self._estates = Landmarks(
            city, self._words.estates, seed, spacing_m=spots.estates_spacing_m, jitter=spots.jitter
        )  # fmt: skip
        self._seed = seed
        self._most_details = model.events.details
        self._chance = Chance(seed, _TELLING)
        self._callers, self._workers = model.hotline.texts, model.patrol.texts
        self._assets = _Assets(city, model.iot.senses)
        self._unreal = 0

    def details(self, category: Category, number: int) -> tuple[Detail, ...]:
        """What can be seen of the event of that number, whoever looks; what strikes everybody first."""
        chance = Chance(self._seed, _DETAILS, number)
        aspects = self._words.thing(category.code).aspects
        count = min(chance.whole(*self._most_details), len(aspects))
        chosen = chance.rng.permutation(len(aspects))[:count].tolist()
        return tuple(
            Detail(aspect, chance.whole(0, len(aspects[aspect]) - 1), chance.whole(2, 9), 10 * chance.whole(1, 9))
            for aspect in chosen
        )

    def ticket(
        self,
        category: Category,
        lon: float,
        lat: float,
        number: int | None,
        *,
        address: str = "",
        phone: str = "",
        errors: Sequence[str] = (),
    ) -> Told:
        """What a caller says, as it was written down.

        ``number`` is the event's, None where there is none.  ``phone`` is said if it is given.
        """
        model, chance, told = self._callers, self._chance, Told()
        manner = self._words.hotline
        place = ""
        if address and len(address) <= _LONGEST_ADDRESS and chance.happens(model.address):
            place = address
            told.traits.append("address")
        again = ""
        if "not_repaired" in errors:
            again = chance.pick(manner.not_repaireds)
        elif "same_again" in errors and chance.happens(model.again_said):
            again = chance.pick(manner.agains)
        self._tell(told, model, manner, category, (lon, lat), number, place, again)
        self._read_out(told, model, category, lon, lat)
        if phone:
            told.text += ("" if told.text.endswith("。") else " ") + f"联系电话{phone}。"
        return told

    def finding(
        self, category: Category, lon: float, lat: float, number: int | None, *, errors: Sequence[str] = ()
    ) -> Told:
        """What a grid worker writes, an empty text for nothing, and the asset that he picks.  ``number`` as above."""
        model, chance, told = self._workers, self._chance, Told()
        if chance.happens(model.silent):
            told.traits.append("silent")
        else:
            again = chance.pick(self._words.patrol.agains) if "same_again" in errors else ""
            self._tell(told, model, self._words.patrol, category, (lon, lat), number, "", again)
        self._pick_asset(told, model, category, lon, lat)
        return told

    def question(self, category: Category) -> str:
        """What somebody asks or praises."""
        return self._chance.pick(self._words.hotline.questions).format(name=category.name)

    # -------------------------------------------------------------------------------------------------- sentences

    def _tell(
        self,
        told: Told,
        model: TextModel,
        manner: Manner,
        category: Category,
        at: tuple[float, float],
        number: int | None,
        place: str,
        again: str,
    ) -> None:
        chance = self._chance
        thing = self._words.thing(category.code)
        parts = {"again": again, "thing": category.name}
        if thing.called and chance.happens(model.own_word):
            parts["thing"] = chance.pick(thing.called)
            told.traits.append("own_word")
        separator = chance.pick(self._words.separators)
        if chance.happens(model.terse):
            told.traits.append("terse")
            parts["closing"] = chance.pick(manner.closings)
            order: Sequence[str] = ("again", "thing", "closing")
        else:
            order = chance.pick(manner.orders)
            numerals = chance.happens(model.in_numerals)
            told.traits.append("in_numerals" if numerals else "in_digits")
            parts["place"] = place + self._where(told, model, *at, numerals)
            parts["details"] = separator.join(self._seen(told, model, thing, category, number, numerals))
            for part, share, choices in (
                ("opening", model.opening, manner.openings),
                ("when", model.when, manner.whens),
                ("closing", model.closing, manner.closings),
            ):
                if part in order and chance.happens(share):
                    parts[part] = chance.pick(choices)
                if part in order:
                    told.traits.append(part if part in parts else f"{part}_left_out")
        said = separator.join(parts[part] for part in order if parts.get(part))
        told.text = said if separator.isspace() else said + "。"

    def _seen(
        self, told: Told, model: TextModel, thing: Thing, category: Category, number: int | None, numerals: bool
    ) -> list[str]:
        """The details that somebody mentions, in the order in which they come to mind."""
        if number is None:
            # What is not there is described all the same, and by nobody else.
            self._unreal += 1
            number = (1 << 32) + self._unreal
        chance = self._chance
        details = self.details(category, number)
        said: list[str] = []
        for at in chance.rng.permutation(len(details)).tolist():
            detail = details[at]
            trait, share = ("detail_further", model.detail_further) if at else ("detail", model.detail)
            if not chance.happens(share):
                told.traits.append(f"{trait}_left_out")
                continue
            told.traits.append(trait)
            choices = thing.aspects[detail.aspect]
            choice, small, large = detail.choice, detail.small, detail.large
            if chance.happens(model.mistaken):
                choice = (choice + chance.whole(1, len(choices) - 1)) % len(choices)
                told.traits.append("mistaken")
            wording = choices[choice][0]
            if not chance.happens(model.plain):
                wording = chance.pick(choices[choice])
            if "{" in wording:
                told.traits.append("counted")
                if chance.happens(model.miscounted):
                    told.traits.append("miscounted")
                    off = chance.pick((-1, 1))
                    small, large = max(small + off, 1), max(large + 10 * off, 5)
            said.append(_filled(wording, small, large, numerals))
        return said

    # ------------------------------------------------------------------------------------------------------ places

    def _where(self, told: Told, model: TextModel, lon: float, lat: float, numerals: bool) -> str:
        """What stands nearby, and where from there."""
        chance = self._chance
        if not chance.happens(model.landmark):
            return ""
        told.traits.append("landmark")
        seen_from = moved(lon, lat, *chance.offset(model.seen_from_m))
        estate = ""
        if chance.happens(model.estate):
            told.traits.append("estate")
            estate = self._named(told, model, self._estates.nearest(*seen_from, 1)[0], numerals)
        return estate + self._nearby(told, model, seen_from, lon, lat, numerals)

    def _nearby(
        self, told: Told, model: TextModel, seen_from: tuple[float, float], lon: float, lat: float, numerals: bool
    ) -> str:
        chance = self._chance
        near, next_to = self._landmarks.nearest(*seen_from, 2)
        how = chance.between(0, 1)
        if how < model.between:
            told.traits.append("between")
            one, other = (self._named(told, model, landmark, numerals) for landmark in (near, next_to))
            return chance.pick(self._words.between).format(a=one, b=other)
        if how < model.between + model.second:
            told.traits.append("second")
            near = next_to
        return self._named(told, model, near, numerals) + self._beside(told, model, near, lon, lat, numerals)

    def _named(self, told: Told, model: TextModel, landmark: Landmark, numerals: bool) -> str:
        chance, number = self._chance, landmark.number
        form = landmark.forms[0]
        if len(landmark.forms) > 1 and chance.happens(model.other_name):
            form = chance.pick(landmark.forms[1:])
            told.traits.append("other_name")
        if chance.happens(model.misheard):
            told.traits.append("misheard")
            if number is not None and chance.happens(0.5):
                number += 1
            else:
                form = _misheard(form, self._words, chance)
        return form if number is None else form.replace("{n}", numeral(number) if numerals else str(number))

    def _beside(self, told: Told, model: TextModel, landmark: Landmark, lon: float, lat: float, numerals: bool) -> str:
        chance = self._chance
        how = chance.between(0, 1)
        if how < model.beside:
            told.traits.append("beside")
            return chance.pick(landmark.at)
        if how >= model.beside + model.side + model.steps:
            return ""
        side = _side(landmark, lon, lat)
        if chance.happens(model.side_wrong):
            told.traits.append("side_wrong")
            side = (side + chance.whole(1, _SIDES - 1)) % _SIDES
        if how < model.beside + model.side:
            told.traits.append("side")
            return chance.pick(self._words.sides[side])
        told.traits.append("steps")
        away_m = float(distance_m(lon, lat, landmark.lon, landmark.lat))
        # Up to 190, as far as numerals are known; landmarks lie nearer.
        rounded_m = 10 * min(max(round(away_m / 10), 1), 19)
        return _filled(chance.pick(self._words.steps[side]), 0, rounded_m, numerals)

    # ------------------------------------------------------------------------------------------------------ assets

    def _read_out(self, told: Told, model: CallerTextModel, category: Category, lon: float, lat: float) -> None:
        """Some read the number of a lamp-post or a cover to whoever writes the ticket."""
        chance = self._chance
        near = self._assets.of_kinds(model.read_out_of, lon, lat, model.read_out_within_m)
        if not near or not chance.happens(model.read_out):
            return
        asset_id = near[0].asset_id
        assert asset_id is not None, "only what has a number can be read out"
        told.traits.append("read_out")
        if chance.happens(model.misread):
            told.traits.append("misread")
            told.errors += ("misread",)
            said = asset_id[:-1] + _another_sign(asset_id[-1], chance)
        else:
            said = asset_id
            if self._assets.fits(near[0], category) and chance.happens(model.noted):
                told.traits.append("noted")
                told.asset_id = asset_id
        told.text = chance.pick(self._words.read_out).format(id=said) + "," + told.text

    def _pick_asset(self, told: Told, model: WorkerTextModel, category: Category, lon: float, lat: float) -> None:
        """The part that a worker picks on the map of his app, now and then its neighbour."""
        chance = self._chance
        if not category.code.startswith(tuple(model.asset_classes)):
            return
        near = self._assets.fitting(category, lon, lat, model.asset_within_m)
        if not near or not chance.happens(model.asset):
            return
        told.traits.append("asset")
        picked = near[0]
        around = self._assets.fitting(category, picked.lon, picked.lat, model.neighbour_within_m)
        others = [device for device in around if device is not picked]
        if others and chance.happens(model.neighbour):
            picked = others[0]
            told.traits.append("neighbour")
            told.errors += ("neighbour",)
        told.asset_id = picked.asset_id


class _Assets:
    """The devices of a city that have a number in the census of its parts, by what they can sense."""

    def __init__(self, city: SimulatedCity, senses: dict[str, list[str]]) -> None:
        self._senses = senses
        self._devices = [device for device in city.sensors if device.asset_id]
        # One entry a kind of device, of which the model names some.
        self._of_kind: dict[str, tuple[list[Device], np.ndarray, np.ndarray]] = {}
        for kind in sorted({device.kind for device in self._devices}):
            of = [device for device in self._devices if device.kind == kind]
            self._of_kind[kind] = of, np.array([d.lon for d in of]), np.array([d.lat for d in of])

    def fits(self, device: Device, category: Category) -> bool:
        """Whether a device stands on a thing of that category."""
        return category.code in self._senses.get(device.kind, ())

    def fitting(self, category: Category, lon: float, lat: float, within_m: float) -> list[Device]:
        """The things of a category around a point, the nearest first."""
        kinds = [kind for kind, codes in self._senses.items() if kind != "any" and category.code in codes]
        return self.of_kinds(kinds, lon, lat, within_m)

    def of_kinds(self, kinds: Sequence[str], lon: float, lat: float, within_m: float) -> list[Device]:
        """The devices of some kinds around a point, the nearest first."""
        found: list[tuple[float, str, Device]] = []
        for kind in kinds:
            if kind in self._of_kind:
                devices, lons, lats = self._of_kind[kind]
                away_m = distance_m(lon, lat, lons, lats)
                within = np.flatnonzero(away_m <= within_m).tolist()
                found += [(float(away_m[at]), devices[at].id, devices[at]) for at in within]
        return [device for _, _, device in sorted(found, key=lambda one: one[:2])]


def _side(landmark: Landmark, lon: float, lat: float) -> int:
    """On which side of a landmark a point lies: 0 north, 1 east, 2 south, 3 west."""
    east_m = float(distance_m(landmark.lon, lat, lon, lat)) * (1 if lon >= landmark.lon else -1)
    north_m = float(distance_m(lon, landmark.lat, lon, lat)) * (1 if lat >= landmark.lat else -1)
    if abs(north_m) >= abs(east_m):
        return 0 if north_m >= 0 else 2
    return 1 if east_m >= 0 else 3


def _filled(wording: str, small: int, large: int, numerals: bool) -> str:
    """The wording with its numbers in it.

    >>> _filled("有{n}个摊", 2, 10, True), _filled("第{n}根", 2, 10, True), _filled("{m}米长", 2, 40, False)
    ('有两个摊', '第二根', '40米长')
    """
    if "{n}" in wording:
        at = wording.index("{n}")
        # Two of something are 两, the second of something is 二.
        counts = wording[:at][-1:] != "第" and wording[at + 3 : at + 4] not in tuple("号楼层")
        written = numeral(small) if small != 2 or not counts else "两"
        wording = wording.replace("{n}", written if numerals else str(small))
    return wording.replace("{m}", numeral(large) if numerals else str(large))


def _misheard(form: str, words: Vocabulary, chance: Chance) -> str:
    """One sign taken for another that sounds alike, or two signs the wrong way round."""
    alike = [(at, signs) for at, sign in enumerate(form) for signs in words.confused if sign in signs]
    if alike:
        at, signs = chance.pick(alike)
        return form[:at] + chance.pick(signs.replace(form[at], "")) + form[at + 1 :]
    spots = [at for at in range(len(form) - 1) if "{" not in form[: at + 2] and form[at] != form[at + 1]]
    at = chance.pick(spots) if spots else 0
    return form[:at] + form[at : at + 2][::-1] + form[at + 2 :] if spots else form


def _another_sign(sign: str, chance: Chance) -> str:
    return chance.pick("0123456789".replace(sign, ""))
