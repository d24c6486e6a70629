"""Where ClickHouse is: ``chdb:///path`` (in this process) or ``clickhouse://user:pass@host:8123/db`` (a server)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from sinks.errors import DsnError

DEFAULT_DATABASE = "citybrain"
FORMS = "chdb:///absolute/folder or clickhouse://user@host:8123/database"

_HTTP_PORT = 8123
_HTTPS_PORT = 8443
_DATABASE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_BOOLEANS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def _boolean(name: str, text: str) -> bool:
    try:
        return _BOOLEANS[text.lower()]
    except KeyError:
        raise DsnError(f"ClickHouse address: {name}={text} is neither true nor false") from None


def _seconds(name: str, text: str) -> int:
    # Whole seconds: the driver cuts fractions off, and half a second would become none.
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 3600):
        raise DsnError(f"ClickHouse address: {name}={text} must be whole seconds, 1 to 3600")
    return int(text)


_SERVER_OPTIONS: dict[str, Callable[[str, str], bool | int | str]] = {
    "secure": _boolean,  # HTTPS
    "verify": _boolean,  # check the server's certificate
    "ca_cert": lambda name, text: text,  # file of the authority that signed it
    "password_file": lambda name, text: text,
    "connect_timeout_s": _seconds,
    "timeout_s": _seconds,  # of one request
}
_EMBEDDED_OPTIONS: dict[str, Callable[[str, str], bool | int | str]] = {"database": lambda name, text: text}


@dataclass(frozen=True)
class Dsn:
    """A parsed address.  ``str`` and ``repr`` never show the password.

    Embedded: ``path`` is set and ``host`` is empty.  Server: the reverse.
    """

    path: str = ""
    host: str = ""
    port: int = 0
    user: str = "default"
    password: str = field(default="", repr=False)
    database: str = DEFAULT_DATABASE
    secure: bool = False
    verify: bool = True
    ca_cert: str = ""
    connect_timeout_s: int = 5
    timeout_s: int = 60

    @property
    def embedded(self) -> bool:
        """Whether this is the engine in this very process."""
        return bool(self.path)

    def __str__(self) -> str:
        """Give the address as it may be shown, with ``***`` for a password."""
        database = "" if self.database == DEFAULT_DATABASE else f"?database={self.database}"
        if self.embedded:
            return f"chdb://{quote(self.path)}{database}"
        secret = ":***" if self.password else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"clickhouse://{quote(self.user, safe='')}{secret}@{host}:{self.port}/{self.database}"

    @classmethod
    def parse(cls, text: str) -> Dsn:
        """Read an address.

        ``chdb:///path[?database=NAME]`` ·
        ``clickhouse://[user[:password]@]host[:port][/database][?secure=1&verify=0&ca_cert=FILE&password_file=FILE&
        connect_timeout_s=5&timeout_s=60]``.  Percent-encode reserved characters.  ``password_file`` holds the
        password, its trailing line end is dropped.  The database is ``citybrain`` where none is given.

        Raises
        ------
        DsnError
            One line; it never repeats what stands between ``//`` and ``@``.
        """
        scheme, separator, _ = text.partition("://")
        if not separator:
            raise DsnError(f"a ClickHouse address looks like {FORMS}")
        if scheme not in ("chdb", "clickhouse"):
            raise DsnError(f"ClickHouse address: unknown scheme {scheme!r}; write {FORMS}")
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:
            # urllib's own message repeats the port's text, and with an unescaped @ or / in a password that is a secret.
            raise DsnError(
                "ClickHouse address: host or port cannot be read; percent-encode / : @ # ? in user and password"
            ) from None
        if parts.fragment:
            raise DsnError("ClickHouse address: write # as %23")
        known = _EMBEDDED_OPTIONS if scheme == "chdb" else _SERVER_OPTIONS
        options: dict[str, bool | int | str] = {}
        for name, value in parse_qsl(parts.query, keep_blank_values=True):
            if name not in known:
                hint = "put the password in a file and name it with password_file" if name == "password" else ""
                hint = hint or f"known are {', '.join(sorted(known))}"
                raise DsnError(f"ClickHouse address: unknown option {name!r} for {scheme}://; {hint}")
            if name in options:
                raise DsnError(f"ClickHouse address: option {name} is given twice")
            options[name] = known[name](name, value)
        return (
            cls._embedded(parts.netloc, parts.path, options) if scheme == "chdb" else cls._server(parts, port, options)
        )

    @classmethod
    def _embedded(cls, netloc: str, path: str, options: dict[str, bool | int | str]) -> Dsn:
        path = unquote(path)
        if netloc or not path.startswith("/"):
            raise DsnError(
                "ClickHouse address: chdb needs an absolute folder, with three slashes: chdb:///absolute/folder"
            )
        if path == "/" or "\0" in path:
            raise DsnError(
                "ClickHouse address: chdb:// needs a folder of its own, for example chdb:///var/lib/citybrain/chdb"
            )
        return cls(path=path, database=_database(str(options.get("database", DEFAULT_DATABASE))))

    @classmethod
    def _server(cls, parts: SplitResult, port: int | None, options: dict[str, bool | int | str]) -> Dsn:
        if not parts.hostname:
            raise DsnError("ClickHouse address: clickhouse:// needs a host: clickhouse://user@host:8123/database")
        password = unquote(parts.password or "")
        password_file = str(options.pop("password_file", ""))
        if password_file:
            if password:
                raise DsnError("ClickHouse address: give the password in the address or in password_file, not in both")
            password = _read_password(password_file)
        secure = bool(options.get("secure", False))
        return cls(
            host=parts.hostname,
            port=port or (_HTTPS_PORT if secure else _HTTP_PORT),
            user=unquote(parts.username or "default"),
            password=password,
            database=_database(unquote(parts.path.strip("/")) or DEFAULT_DATABASE),
            **options,  # type: ignore[arg-type]  # each was made by its own reader in _SERVER_OPTIONS
        )


def _database(name: str) -> str:
    if not _DATABASE_NAME.fullmatch(name):
        raise DsnError(f"ClickHouse address: {name!r} is no database name (letters, digits, _; at most 64)")
    return name


def _read_password(path: str) -> str:
    try:
        password = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise DsnError(f"ClickHouse address: cannot read password_file {path}: {reason}") from None
    if not password:
        raise DsnError(f"ClickHouse address: password_file {path} is empty")
    return password
