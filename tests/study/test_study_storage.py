"""Storages of studies that refuse, are not there, or are something else: one clear error, no password in it."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy.exc

from lof.errors import StudyError
from lof.study import open_storage
from lof.study.storage import hide_password


def refused(url: str) -> str:
    with pytest.raises(StudyError) as caught:
        open_storage(url)
    assert "secret" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://lof:secret@host/db", "postgresql://lof:***@host/db"),
        ("postgresql://lof:s%65cret@host:5/db", "postgresql://lof:***@host:5/db"),
        ("mysql://host/db?user=lof&password=secret", "mysql://host/db?user=lof&password=***"),
        ("sqlite:///study.db", "sqlite:///study.db"),
    ],
)
def test_no_password_of_a_url_is_shown(url: str, shown: str) -> None:
    assert hide_password(url) == shown


def test_no_password_is_shown_in_what_a_driver_says() -> None:
    assert hide_password("no entry for 'secret'", "mysql://lof:secret@host/db") == "no entry for '***'"


def test_what_is_only_looked_at_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"s\.db: there is no such file on this machine"):
        open_storage(f"sqlite:///{tmp_path}/s.db", create=False)
    assert list(tmp_path.iterdir()) == []
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE mine (x)")
    with pytest.raises(StudyError, match="no such table"):
        open_storage(f"sqlite:///{tmp_path}/other.db", create=False)
    with sqlite3.connect(tmp_path / "other.db") as other:
        assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("mine",)]


@pytest.mark.parametrize("trouble", [sqlalchemy.exc.IntegrityError, sqlalchemy.exc.OperationalError])
def test_processes_that_make_the_same_database_at_once_all_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: type[sqlalchemy.exc.DBAPIError]
) -> None:
    make = optuna.storages.RDBStorage

    class Late(make):  # type: ignore[misc, valid-type]
        """At its first attempt another process makes the tables between its look and its own hand."""

        late = False

        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            if Late.late:
                return
            Late.late = True
            raise trouble("INSERT", {}, Exception("UNIQUE constraint failed: alembic_version.version_num"))

    monkeypatch.setattr(optuna.storages, "RDBStorage", Late)
    assert open_storage(f"sqlite:///{tmp_path}/s.db").get_all_studies() == []
    assert Late.late


def test_storages_that_cannot_be_are_refused(tmp_path: Path) -> None:
    assert "its driver is not installed (No module named 'oracledb')" in refused(
        "oracle+oracledb://u:secret@host/db"
    )
    assert "its driver is not installed" in refused("nosuch://u:secret@host/db")
    assert "no storage; give sqlite:///FILE.db" in refused("studies")
    assert "unable to open" in refused(f"sqlite:///{tmp_path}/none/x.db")
    (tmp_path / "other.db").write_bytes(b"not a database at all, but long enough to look like a header" * 20)
    assert "not a database" in refused(f"sqlite:///{tmp_path}/other.db")


def test_a_url_that_is_none_is_refused() -> None:
    assert hide_password("postgresql://lof@host:port/db") == "postgresql://lof@host:port/db"
    assert "postgresql://lof@host:port/db: no URL of a database" in refused("postgresql://lof@host:port/db")
