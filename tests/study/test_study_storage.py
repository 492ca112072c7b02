"""Storages of studies that refuse, are not there, or are something else: one clear error, no password in it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy.exc

from lof.errors import StudyError
from lof.study import open_storage


@pytest.fixture
def refusing_server() -> Iterator[int]:
    """Speaks enough of PostgreSQL's protocol to refuse a password."""
    server = socket.create_server(("127.0.0.1", 0))
    fields = b'SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed for user "lof" with secret\0\0'
    answer = b"E" + (len(fields) + 4).to_bytes(4, "big") + fields

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.recv(1024)  # may we speak TLS?
                connection.sendall(b"N")
                connection.recv(1024)  # who and where
                connection.sendall(answer)
                connection.recv(1024)  # until the client has gone

    threading.Thread(target=serve, daemon=True).start()
    yield server.getsockname()[1]
    server.close()


def refused(url: str) -> str:
    with pytest.raises(StudyError) as caught:
        open_storage(url)
    assert "secret" not in str(caught.value)
    return str(caught.value)


def test_a_wrong_password_is_one_clear_error_without_it(refusing_server: int) -> None:
    message = refused(f"postgresql+pg8000://lof:secret@127.0.0.1:{refusing_server}/studies")
    assert message.startswith(f"postgresql+pg8000://lof:***@127.0.0.1:{refusing_server}/studies: ")
    assert "/studies: password authentication failed for user" in message


def test_a_database_that_is_not_there_is_one_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert "refused" in refused(f"postgresql+pg8000://lof:secret@127.0.0.1:{port}/studies")


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
    assert "its driver is not installed; pip install oracledb" in refused(
        "oracle+oracledb://u:secret@host/db"
    )
    assert "its driver is not installed" in refused("nosuch://u:secret@host/db")
    assert "no storage; use sqlite:///FILE.db" in refused("studies")
    assert "unable to open" in refused(f"sqlite:///{tmp_path}/none/x.db")
    (tmp_path / "other.db").write_bytes(b"not a database at all, but long enough to look like a header" * 20)
    assert "not a database" in refused(f"sqlite:///{tmp_path}/other.db")
    (tmp_path / "other.log").write_bytes(b"a log of something else\nwith a torn end")
    assert "is no journal" in refused(f"{tmp_path}/other.log")
    assert (tmp_path / "other.log").read_bytes().endswith(b"torn end")
