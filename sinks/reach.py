"""Whether anybody listens at a broker's address, told at once and with the operating system's own reason.

Kafka's clients retry for ever or for a long time and then say only that time ran out; a person who mistyped an address
wants to know it now.
"""

from __future__ import annotations

import socket

from sinks.errors import SinkUnavailable


class UnreachableError(SinkUnavailable):
    """Nobody listens at any of the addresses; one line with each address, its reason, and the remedy."""


def require_reachable(bootstrap: str, timeout_s: float = 3.0) -> None:
    """Return as soon as one address of ``bootstrap`` (``host:port[,host:port…]``) accepts a connection.

    Raises ``UnreachableError`` if none does, after at most ``timeout_s`` an address, and ``ValueError`` if one is not
    ``host:port`` (an IPv6 host in brackets).
    """
    reasons = []
    for address in addresses(bootstrap):
        reason = why_unreachable(address, timeout_s)
        if reason is None:
            return
        reasons.append(f"{address} ({reason})")
    raise UnreachableError(f"no Kafka at {', '.join(reasons)}; start it, or name another with --brokers")


def addresses(bootstrap: str) -> list[str]:
    """The single addresses of a bootstrap list."""
    return [address.strip() for address in bootstrap.split(",")]


def why_unreachable(address: str, timeout_s: float = 3.0) -> str | None:
    """The operating system's reason why nobody accepts a connection at ``host:port``; None if somebody does.

    Raises ``ValueError`` if it is not an address.
    """
    host, port = _split(address)
    try:
        socket.create_connection((host, port), timeout_s).close()
    except OSError as error:
        return error.strerror or str(error)
    return None


def _split(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"{address!r} is not a broker's address; write host:port, as in localhost:9092")
    return host.removeprefix("[").removesuffix("]"), int(port)
