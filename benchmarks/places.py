"""What finding places by their names costs: `python -m benchmarks.places [--save]`.

Seeded: places with names of 7 to 13 characters on 5,000 roads of the sample city, and tickets that each name one of
them, a street and a place nobody knows.

- `load`: a pack with a million places, in a process of its own: CPU seconds, memory, and for how long another thread of
  that process could not run (a worker takes up a changed pack while it works).
- `tickets`: microseconds for a ticket, address and text, placed by the gazetteer of that pack.
- `names`: only the search for the leftmost, longest name of a text, beside what one would write first, a loop with
  `in`; a regex alternation; and an Aho-Corasick automaton (pyahocorasick).  The first two on fewer names, for they take
  too long on a million.  All must find the same names.
"""

from __future__ import annotations

import json
import random
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ahocorasick

from benchmarks.results_file import tell
from geo.place_names import PlaceNames, normalised
from streams.intake import IntakePack
from streams.pack import parse_pack, read_pack_files

ROOT = Path(__file__).resolve().parent.parent
RUNS = 5
MANY, FEW = 1_000_000, 10_000
TICKETS, TICKETS_OF_SLOW_ONES = 5_000, 50

Find = Callable[[str], str]
"""The leftmost, longest name in a normalised text."""


def names(count: int) -> list[str]:
    """Names of places, all different."""
    rng = random.Random(1)
    signs = [chr(0x4E00 + n) for n in range(2_500)]
    roads = ["".join(rng.choices(signs, k=3)) + "路" for _ in range(5_000)]
    found: dict[str, None] = {}
    while len(found) < count:
        house = f"{rng.choice(roads)}{rng.randint(1, 999)}号" + "".join(rng.choices(signs, k=rng.randint(0, 3)))
        found[house + rng.choice(("小区", "超市", "学校", ""))] = None
    return list(found)


def tickets(those: list[str], count: int) -> list[tuple[str, str]]:
    """Address and text."""
    rng = random.Random(2)
    return [
        (f"临澜区青塘街道{name}附近" if n % 2 else "路边", f"市民反映{name}门口的井盖没有了，无名巷也一样，请尽快处理")
        for n, name in enumerate(rng.choices(those, k=count))
    ]


def places_csv(those: list[str]) -> bytes:
    """All of them in 青塘街道 of the sample city."""
    rng = random.Random(3)
    rows = [
        f"{name},,{119.936 + rng.random() * 0.006:.6f},{38.741 + rng.random() * 0.006:.6f},wgs84,{rng.randint(1, 9)}0,"
        for name in those
    ]
    return "\n".join(["name,aliases,lon,lat,crs,accuracy_m,grid_code", *rows, ""]).encode()


@contextmanager
def held_up() -> Iterator[list[float]]:
    """The longest that another thread could not run, in seconds."""
    longest_s = [0.0]
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            before = time.perf_counter()
            time.sleep(0.001)
            longest_s[0] = max(longest_s[0], time.perf_counter() - before)

    thread = threading.Thread(target=watch)
    thread.start()
    yield longest_s
    done.set()
    thread.join()


def resident_mb() -> float:
    """Memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / 1e6


def load(count: int) -> dict[str, object]:
    """Load a pack with so many places, and place tickets by it."""
    those = names(count)
    said = tickets(those, TICKETS)
    files = read_pack_files(ROOT / "packs" / "sample")
    IntakePack(parse_pack(files))  # compiles what has to be compiled
    files["places.csv"] = places_csv(those)
    del those
    before_mb = resident_mb()
    with held_up() as longest_s:
        started = time.process_time()
        pack = parse_pack(files)
        parsed = time.process_time()
        gazetteer = IntakePack(pack).gazetteer
        built = time.process_time()
    assert len(gazetteer) >= count
    seconds = []
    for _ in range(RUNS):
        before = time.process_time()
        placed = [gazetteer.place(address, text) for address, text in said]
        seconds.append(time.process_time() - before)
    assert all(one is not None and one.accuracy_m < 150 for one in placed), "every ticket names a place"
    return {
        "places": count,
        "csv_mb": round(len(files["places.csv"]) / 1e6),
        "read_s": round(parsed - started, 1),
        "build_s": round(built - parsed, 1),
        "memory_mb": round(resident_mb() - before_mb),
        "others_held_up_s": round(longest_s[0], 2),
        "us_per_ticket": round(statistics.median(seconds) / len(said) * 1e6, 1),
    }


def ours(those: list[str]) -> Find:
    """A dict of names."""
    index = PlaceNames()
    for name in those:
        index.add(name)

    def find(text: str) -> str:
        start, end, _ = index.find(text)[0]
        return text[start:end]

    return find


def automaton(those: list[str]) -> Find:
    """Every name that ends anywhere, then the leftmost and longest of them.

    Not the automaton's own `iter_long`: it misses names at the end of a text.
    """
    made: Any = ahocorasick.Automaton(ahocorasick.STORE_LENGTH)
    for name in those:
        made.add_word(normalised(name))
    made.make_automaton()

    def find(text: str) -> str:
        start, length = min((end - length + 1, -length) for end, length in made.iter(text))
        return text[start : start - length]

    return find


def longest_first(those: list[str]) -> list[str]:
    """The names, normalised."""
    return sorted(map(normalised, those), key=len, reverse=True)


def alternation(those: list[str]) -> Find:
    """One regex."""
    made = re.compile("|".join(re.escape(name) for name in longest_first(those)))

    def find(text: str) -> str:
        found = made.search(text)
        assert found
        return found[0]

    return find


def loop(those: list[str]) -> Find:
    """Is it in there?"""
    forms = longest_first(those)

    def find(text: str) -> str:
        return min((name for name in forms if name in text), key=text.index)

    return find


def compare(count: int, searches: dict[str, Callable[[list[str]], Find]], texts: int) -> dict[str, object]:
    """CPU seconds to build, and microseconds a text; raises AssertionError if they find different names."""
    those = names(count)
    plain = [normalised(text) for _, text in tickets(those, texts)]
    expected = None
    result: dict[str, object] = {"names": count}
    for name, build in searches.items():
        with held_up() as longest_s:
            started = time.process_time()
            find = build(those)
            build_s = time.process_time() - started
        seconds = []
        for _ in range(RUNS):
            before = time.process_time()
            found = [find(text) for text in plain]
            seconds.append(time.process_time() - before)
        expected = expected or found
        assert found == expected, name
        result[name] = {
            "build_s": round(build_s, 2),
            "others_held_up_s": round(longest_s[0], 2),
            "us_per_text": round(statistics.median(seconds) / len(plain) * 1e6, 1),
        }
    return result


def main() -> None:
    if "--load" in sys.argv:
        print(json.dumps(load(MANY)))
        return
    loaded = subprocess.run(
        [sys.executable, "-m", "benchmarks.places", "--load"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    result: dict[str, object] = {
        "runs": RUNS,
        "load": json.loads(loaded.stdout),
        "names": [
            compare(MANY, {"ours": ours, "aho_corasick": automaton}, TICKETS),
            compare(
                FEW,
                {"ours": ours, "aho_corasick": automaton, "alternation": alternation, "loop": loop},
                TICKETS_OF_SLOW_ONES,
            ),
        ],
    }
    tell("places", result)


if __name__ == "__main__":
    main()
