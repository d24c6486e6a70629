"""The folder of the pack in use, looked at now and then for a change."""

from __future__ import annotations

from pathlib import Path

from streams.intake import IntakePack
from streams.pack import CityPack, Fault, PackError, parse_pack, read_pack_files
from streams.pack_check import PACK_FILES

_Stamp = tuple[tuple[str, int, int], ...]


class PackFolder:
    """Notices that a pack's files have changed, and makes the new pack ready to be taken up.

    Attributes
    ----------
    changed : IntakePack or None
        A changed pack that is sound and waits to be taken.
    """

    def __init__(self, folder: Path, pack: CityPack) -> None:
        self._folder = folder
        self._city = pack.code
        self._version = pack.version
        self._settled = self._seen = self._stamp()
        self.changed: IntakePack | None = None

    def look(self) -> None:
        """Look once; reads the files only if one was written since, and is not still being written.

        Raises :class:`PackError` if the new pack cannot be used; says so once, until the files change again.
        """
        stamp = self._stamp()
        # Files are copied one by one: what differs from one look to the next is not finished.
        is_settled, self._seen = stamp == self._seen, stamp
        if not is_settled or stamp == self._settled:
            return
        self._settled = stamp
        pack = parse_pack(read_pack_files(self._folder))
        if pack.code != self._city:
            detail = f"code = {pack.code!r} is another city's; this worker is of {self._city!r}"
            raise PackError([Fault("city.toml", None, detail)])
        self.changed = IntakePack(pack) if pack.version != self._version else None

    def take(self) -> IntakePack:
        """The changed pack, which is the one in use from now on."""
        made, self.changed = self.changed, None
        assert made is not None, "there is a changed pack"
        self._version = made.pack.version
        return made

    def _stamp(self) -> _Stamp:
        stamps = []
        for name in PACK_FILES:
            try:
                found = (self._folder / name).stat()
            except FileNotFoundError:
                continue
            stamps.append((name, found.st_mtime_ns, found.st_size))
        return tuple(stamps)
