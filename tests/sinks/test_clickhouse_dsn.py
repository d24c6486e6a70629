"""Addresses of ClickHouse: what is read, what is refused, and that no secret is shown."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sinks.clickhouse_dsn import Dsn
from sinks.errors import DsnError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("chdb:///var/lib/city", Dsn(path="/var/lib/city")),
        ("chdb:///with%20space?database=town", Dsn(path="/with space", database="town")),
        ("clickhouse://ch", Dsn(host="ch", port=8123)),
        ("clickhouse://ch/town", Dsn(host="ch", port=8123, database="town")),
        ("clickhouse://ch?secure=1", Dsn(host="ch", port=8443, secure=True)),
        ("clickhouse://ch:9?secure=yes&verify=0", Dsn(host="ch", port=9, secure=True, verify=False)),
        ("clickhouse://me:p%40ss%2F@ch:81/d", Dsn(host="ch", port=81, user="me", password="p@ss/", database="d")),
        ("clickhouse://[2001:db8::1]:8123/d", Dsn(host="2001:db8::1", port=8123, database="d")),
        (
            "clickhouse://ch?connect_timeout_s=2&timeout_s=9",
            Dsn(host="ch", port=8123, connect_timeout_s=2, timeout_s=9),
        ),
        ("clickhouse://ch?secure=1&ca_cert=/ca.pem", Dsn(host="ch", port=8443, secure=True, ca_cert="/ca.pem")),
    ],
)
def test_an_address_is_read(text: str, expected: Dsn) -> None:
    assert Dsn.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "looks like chdb:///absolute/folder or clickhouse://"),
        ("/var/lib/city", "looks like"),
        ("postgres://host/db", "unknown scheme 'postgres'"),
        ("chdb://relative/path", "absolute folder, with three slashes"),
        ("chdb://", "absolute folder"),
        ("chdb:///", "folder of its own"),
        ("chdb:///x?secure=1", "unknown option 'secure' for chdb://; known are database"),
        ("chdb:///x?database=a-b", "'a-b' is no database name"),
        ("clickhouse:///db", "needs a host"),
        ("clickhouse://host/a/b", "'a/b' is no database name"),
        ("clickhouse://host/db;drop", "no database name"),
        ("clickhouse://host?secure=maybe", "secure=maybe is neither true nor false"),
        ("clickhouse://host?timeout_s=soon", "timeout_s=soon must be whole seconds, 1 to 3600"),
        ("clickhouse://host?timeout_s=0.5", "timeout_s=0.5 must be whole seconds"),
        ("clickhouse://host?secure=1&secure=0", "secure is given twice"),
        ("clickhouse://host?pasword_file=x", "unknown option 'pasword_file'"),
        ("clickhouse://host:99999/db", "host or port cannot be read"),
        ("clickhouse://host/db#x", "write # as %23"),
        ("clickhouse://host?password_file=/no/such/file", "cannot read password_file /no/such/file"),
    ],
)
def test_a_wrong_address_is_explained_in_one_line(text: str, complaint: str) -> None:
    with pytest.raises(DsnError) as caught:
        Dsn.parse(text)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "clickhouse://me:s3cret@host:99999/db",
        "clickhouse://me:s3cret/word@host/db",  # an unescaped slash ends the host at "s3cret"
        "clickhouse://me:s3cret#word@host/db",
        "clickhouse://me:s3cret@[host/db",
        "clickhouse://me@host/db?password=s3cret",
        "clickhouse://me:s3cret@host/db?nonsense=1",
        "clickhouse://me:s3cret@/db",
        "chdb://me:s3cret@host/path",
        "s3cret",
    ],
)
def test_a_refusal_never_repeats_a_password(text: str) -> None:
    with pytest.raises(DsnError) as caught:
        Dsn.parse(text)
    error: BaseException | None = caught.value
    while error is not None:
        assert "s3cret" not in repr(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


@given(st.text(min_size=1, max_size=20), st.text(st.characters(exclude_categories=["Cs"]), min_size=8, max_size=20))
def test_no_text_form_shows_the_password(user: str, password: str) -> None:
    user = "".join(letter for letter in user if letter.isalnum() and letter.isascii()) or "me"
    password = f"\N{LOCK}{password}"  # so that it cannot be part of the rest by chance
    dsn = Dsn.parse(f"clickhouse://{user}:{quote(password, safe='')}@host/db")
    assert dsn.password == password
    for shown in (str(dsn), repr(dsn), f"{dsn}", f"{[dsn]}"):
        assert password not in shown
        assert quote(password, safe="") not in shown


@given(st.integers(0, 3), st.booleans())
def test_the_shown_form_of_an_address_without_a_password_reads_back(number: int, embedded: bool) -> None:
    text = (
        ("chdb:///a%20b", "chdb:///a?database=x", "chdb:///数据", "chdb:///a/b/c")
        if embedded
        else ("clickhouse://h", "clickhouse://u%40@h:1/x", "clickhouse://[::1]", "clickhouse://h:8443/y")
    )[number]
    dsn = Dsn.parse(text)
    assert Dsn.parse(str(dsn)) == dsn


def test_the_password_may_stand_in_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("p@ss word\n")
    dsn = Dsn.parse(f"clickhouse://me@host?password_file={secret}")
    assert dsn.password == "p@ss word"
    assert "p@ss" not in f"{dsn} {dsn!r}"
    with pytest.raises(DsnError, match="not in both"):
        Dsn.parse(f"clickhouse://me:x@host?password_file={secret}")
    secret.write_text("\n")
    with pytest.raises(DsnError, match="is empty"):
        Dsn.parse(f"clickhouse://me@host?password_file={secret}")
    secret.write_bytes(b"\xff\xfe")
    with pytest.raises(DsnError, match="not UTF-8"):
        Dsn.parse(f"clickhouse://me@host?password_file={secret}")


def test_an_address_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Dsn.parse("chdb:///x").path = "/y"  # type: ignore[misc]
