"""The folder of the pack in use, looked at now and then for a change."""

from __future__ import annotations

from pathlib import Path

from streams.intake import IntakePack
from streams.pack import CityPack, Fault, PackError, parse_pack, read_pack_files
from streams.pack_check import pack_version
from streams.pack_entries import PACK_FILES

_Stamp = tuple[tuple[str, int, int], ...]


class PackFolder:
    """Notices that a pack's files have changed, and makes the new pack ready to be taken up.

    Attributes
    ----------
    changed : IntakePack or None
        A changed pack that is sound and waits to be taken.
    is_sound : bool
        Whether what was last read could be used.
    """

    def __init__(self, folder: Path, pack: CityPack) -> None:
        self._folder = folder
        self._city = pack.code
        self._platforms = {name: mapping.source for name, mapping in pack.platforms.items()}
        self._version = pack.version
        # Nothing was looked at yet: what changed since the pack was read is found like any later change.
        self._settled: _Stamp | None = None
        self._seen: _Stamp | None = None
        self.changed: IntakePack | None = None
        self.is_sound = True

    def look(self) -> None:
        """Look once; reads the files only if one was written since, and is not still being written.

        Raises :class:`PackError` if the new pack cannot be used; says so once, until the files change again.  So it is
        with whatever else goes wrong while they are read and compiled.
        """
        stamp = self._stamp()
        # Files are copied one by one: what differs from one look to the next is not finished.
        is_settled, self._seen = stamp == self._seen, stamp
        if not is_settled or stamp == self._settled:
            return
        self._settled, self.changed = stamp, None
        try:
            self._read(stamp)
        except Exception:
            self.is_sound = False
            raise

    def _read(self, stamp: _Stamp) -> None:
        try:
            files = read_pack_files(self._folder)
        except OSError as error:
            raise PackError([Fault(str(self._folder), None, f"cannot be read: {error.strerror}")]) from error
        if self._stamp() != stamp:
            return  # written to meanwhile, so half of it may be the former pack's
        if pack_version(files) != self._version:
            pack = parse_pack(files)
            if pack.code != self._city:
                detail = f"code = {pack.code!r} is another city's; this worker is of {self._city!r}"
                raise PackError([Fault("city.toml", None, detail)])
            self._require_platforms(pack)
            self.changed = IntakePack(pack)
        self.is_sound = True

    def _require_platforms(self, pack: CityPack) -> None:
        """The worker goes on reading the topics of the platforms that it started with, so each must still be known."""
        kept = {(name, mapping.source) for name, mapping in pack.platforms.items()}
        gone = [f"{name} ({source})" for name, source in self._platforms.items() if (name, source) not in kept]
        if gone:
            detail = f"no longer has {', '.join(gone)} of this worker's platforms; a restart alone can remove them"
            raise PackError([Fault("city.toml", None, detail)])

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
            except OSError:  # why it is not there, reading it tells
                continue
            stamps.append((name, found.st_mtime_ns, found.st_size))
        return tuple(stamps)
