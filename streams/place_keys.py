"""Keys of what may tell that two reports speak of one place: a device, an asset, an address."""

from __future__ import annotations

import hashlib

from geo.place_names import normalised


class PlaceKeys:
    """Makes 64-bit keys, and remembers those of what is said again and again; holds 200,000 at most."""

    def __init__(self, most: int = 200_000) -> None:
        self._most = most
        self._keys: dict[tuple[str, str], int] = {}

    def key(self, kind: str, text: str) -> int:
        """The key of a text of that kind, 0 without a text; an address may be written in any form."""
        if not text:
            return 0
        known = self._keys.get((kind, text))
        if known is None:
            if len(self._keys) >= self._most:
                self._keys.clear()
            said = normalised(text) if kind == "address" else text
            digest = hashlib.blake2b(f"{kind}\0{said}".encode(), digest_size=8).digest()
            known = self._keys[kind, text] = int.from_bytes(digest, "big") | 1
        return known
