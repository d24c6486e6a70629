"""What can go wrong at the edge where outcomes leave.

    SinkError                   base; its text is one line fit for a user
    ├── DsnError                the address is wrong: scheme, path, option, password file
    ├── SinkUnavailable         away for now (refused connection, timeout, overload, no space): wait and flush again
    ├── SinkRefused             it answered and will go on refusing (login, grants, a locked path): somebody must act
    │   └── MigrationError      the schema there and the migrations here do not fit together
    ├── UnreachableError        nobody listens at a broker's address (sinks/reach.py)
    ├── TopicError              topics cannot be made or read (sinks/topics.py)
    │   └── NoTopicAdministration   the broker is the embedded one
    ├── SinkFull                rows were added to a full buffer; the caller should have waited
    └── SinkUnwritable          a file cannot be written (permissions, full disk)

A sink keeps its buffer through ``SinkUnavailable`` and ``SinkRefused``: nothing is lost, and flushing again doubles
nothing, because every table is keyed by what its rows mean.
"""

from __future__ import annotations


class SinkError(Exception):
    """Base of the tree; ``str(error)`` is one line that says what, where and what to do."""


class DsnError(SinkError, ValueError):
    """A ClickHouse address that cannot be used as written."""


class SinkUnavailable(SinkError):  # noqa: N818 - it is a state of the sink, and reads as one
    """The sink is away for now; the buffer is kept, flush again later."""


class SinkRefused(SinkError):  # noqa: N818
    """The sink answered and will refuse again until somebody changes something; the buffer is kept."""


class MigrationError(SinkRefused):
    """The database's schema and this program's migrations contradict each other."""


class SinkFull(SinkError):  # noqa: N818
    """Rows were added while the buffer was full: look at ``full`` first."""


class SinkUnwritable(SinkError):  # noqa: N818
    """A result file cannot be written."""
