"""The pack's folder while somebody edits it: what is taken up, when, and what is said of what cannot be."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.pack_folder import PackFolder
from streams.pack import PackError, load_pack

CITY = 'name = "试验市"\ncode = "990100"\ntimezone = "Asia/Shanghai"\nlevels = ["county"]\n'
CATALOGUE = '[[category]]\ncode = "06010"\nname = "暴露垃圾"\ngroup = "waste"\nradius_m = {radius_m}\nwindow_s = 3600\n'
PLATFORM = '[platform.eyes]\nsource = "{source}"\n[platform.eyes.fields]\nid = "id"\ntime = "time"\n'
FIELDS_OF = {
    "video": 'camera_id = "camera"\nevent_type = "event"\nconfidence = "sure"\n',
    "patrol": 'worker_id = "camera"\ncategory = "event"\nlon = "x"\nlat = "y"\n',
}
SQUARE = [[0, 0], [0.1, 0], [0.1, 0.1], [0, 0.1], [0, 0]]
GRID = {
    "type": "FeatureCollection",
    "features": [
        {
            "type": "Feature",
            "properties": {"code": "990101", "level": "county", "parent": None, "name": "县"},
            "geometry": {"type": "Polygon", "coordinates": [SQUARE]},
        }
    ],
}


class Edited:
    """A pack's folder and an editor whose every save has a time of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.saves = 0
        folder.mkdir()
        self.city()
        self.save("grid.geojson", json.dumps(GRID))
        self.catalogue(30)
        self.looking = PackFolder(folder, load_pack(folder))

    def save(self, name: str, text: str) -> None:
        self.saves += 1
        (self.folder / name).write_text(text, encoding="utf-8")
        os.utime(self.folder / name, ns=(0, self.saves * 1_000_000_000))

    def read(self, name: str) -> str:
        return (self.folder / name).read_text(encoding="utf-8")

    def city(self, platform: str = "eyes", source: str = "video", more: str = "") -> None:
        mapping = (PLATFORM.format(source=source) + FIELDS_OF[source]).replace("eyes", platform)
        self.save("city.toml", CITY + mapping + more)

    def catalogue(self, radius_m: int) -> None:
        self.save("catalogue.toml", CATALOGUE.format(radius_m=radius_m))

    def radius_m(self) -> float | None:
        """Look until nothing is new; the radius in the pack that waits to be taken, None if none does."""
        self.looking.look()
        self.looking.look()
        return None if self.looking.changed is None else self.looking.changed.pack.categories[0].radius_m


@pytest.fixture
def edited(tmp_path: Path) -> Edited:
    return Edited(tmp_path / "pack")


def test_an_unchanged_folder_offers_nothing(edited):
    assert [edited.radius_m() for _ in range(3)] == [None] * 3
    assert edited.looking.is_sound


def test_a_change_is_offered_once(edited):
    edited.catalogue(40)
    assert edited.radius_m() == 40
    assert edited.looking.take().pack.version == load_pack(edited.folder).version
    assert edited.radius_m() is None


def test_files_still_being_written_are_left_alone(edited):
    """The catalogue is copied first; the folder would do by itself, but another file follows."""
    edited.radius_m()
    edited.catalogue(40)
    edited.looking.look()
    edited.save("city.toml", edited.read("city.toml").replace("试验市", "新城"))
    edited.looking.look()
    assert edited.looking.changed is None
    edited.looking.look()
    assert edited.looking.changed is not None
    assert edited.looking.changed.pack.name == "新城"


def test_a_change_between_loading_and_the_first_look_is_seen(tmp_path):
    edited = Edited(tmp_path / "pack")
    in_use = load_pack(edited.folder)
    edited.catalogue(40)
    edited.looking = PackFolder(edited.folder, in_use)
    assert edited.radius_m() == 40


def test_the_same_content_written_again_is_no_change(edited):
    edited.radius_m()
    edited.catalogue(30)
    assert edited.radius_m() is None
    assert edited.looking.is_sound


def another_city(edited: Edited) -> None:
    edited.save("city.toml", edited.read("city.toml").replace("990100", "880100"))


def no_platform(edited: Edited) -> None:
    edited.save("city.toml", CITY)


def a_platform_renamed(edited: Edited) -> None:
    edited.city(platform="ears")


def a_platform_of_another_source(edited: Edited) -> None:
    edited.city(source="patrol")


def broken_toml(edited: Edited) -> None:
    edited.save("catalogue.toml", "[[category")


def no_catalogue(edited: Edited) -> None:
    (edited.folder / "catalogue.toml").unlink()


def a_folder_for_a_file(edited: Edited) -> None:
    no_catalogue(edited)
    (edited.folder / "catalogue.toml").mkdir()


def no_folder(edited: Edited) -> None:
    shutil.rmtree(edited.folder)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (another_city, "code = '880100' is another city's; this worker is of '990100'"),
        (
            no_platform,
            r"city.toml: no longer has eyes \(video\) of this worker's platforms; a restart alone can remove",
        ),
        (a_platform_renamed, "no longer has eyes"),
        (a_platform_of_another_source, "no longer has eyes"),
        (broken_toml, "catalogue.toml"),
        (no_catalogue, "catalogue.toml"),
        (a_folder_for_a_file, "cannot be read: Is a directory"),
        (no_folder, "no such folder"),
    ],
)
def test_what_cannot_be_used_is_told_once_and_never_offered(edited, harm: Callable[[Edited], None], says):
    edited.radius_m()
    harm(edited)
    edited.looking.look()
    with pytest.raises(PackError, match=says):
        edited.looking.look()
    assert edited.radius_m() is None
    assert not edited.looking.is_sound


def test_a_platform_may_come_and_go_again_while_the_workers_own_stay(edited):
    """Its topic is read after a restart only, so nothing of it arrives that nobody knows."""
    edited.radius_m()
    edited.city(more='[platform.ears]\nsource = "video"\n[platform.ears.fields]\nid = "id"\ntime = "time"\n'
                + FIELDS_OF["video"])  # fmt: skip
    assert edited.radius_m() == 30
    assert list(edited.looking.take().pack.platforms) == ["eyes", "ears"]
    edited.city()
    assert edited.radius_m() == 30
    no_platform(edited)
    with pytest.raises(PackError, match="no longer has eyes"):
        edited.radius_m()


def test_whatever_goes_wrong_is_told_once_and_never_offered(edited):
    """A key so deep that even the words for what is wrong with it cannot be made."""
    edited.radius_m()
    edited.city(more="[platform.eyes.codes.event_type]\n" + ".".join(["a"] * 2_000) + " = 1\n")
    with pytest.raises(RecursionError):
        edited.radius_m()
    assert edited.radius_m() is None
    assert not edited.looking.is_sound
    edited.city()
    assert edited.radius_m() is None
    assert edited.looking.is_sound


def test_a_folder_mended_to_what_is_in_use_is_sound_again_and_offers_nothing(edited):
    edited.radius_m()
    broken_toml(edited)
    with pytest.raises(PackError):
        edited.radius_m()
    edited.catalogue(30)
    assert edited.radius_m() is None
    assert edited.looking.is_sound


def test_a_folder_mended_to_something_new_offers_that(edited):
    edited.radius_m()
    broken_toml(edited)
    with pytest.raises(PackError):
        edited.radius_m()
    edited.catalogue(50)
    assert edited.radius_m() == 50
    assert edited.looking.is_sound


def test_a_change_that_was_broken_before_it_was_taken_is_withdrawn(edited):
    edited.catalogue(40)
    assert edited.radius_m() == 40
    broken_toml(edited)
    with pytest.raises(PackError):
        edited.radius_m()
    assert edited.looking.changed is None
