"""Optuna's storages by URL, with errors that a person can act on."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lof.errors import StudyError
from lof.study.journal import open_journal

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

JOURNAL = "journal://"


def open_storage(url: str) -> BaseStorage:
    """A storage that several processes can share.

    Args:
        url: ``sqlite:///study.db`` or the URL of another database as SQLAlchemy writes it; or
            ``journal:///path`` or a plain path ending in ``.log`` for a journal file; a plain path ending in
            ``.db`` or ``.sqlite3`` is a SQLite file.

    Raises:
        StudyError: the database's driver is missing, the database cannot be reached or refuses, or
            the file is something else. No password is in the message.
    """
    if url.startswith(JOURNAL) or ("://" not in url and url.endswith(".log")):
        return open_journal(Path(url.removeprefix(JOURNAL)))
    if "://" not in url:
        if Path(url).suffix not in (".db", ".sqlite3"):
            raise StudyError(
                f"{url}: no storage; use sqlite:///FILE.db, journal:///FILE.log or a database URL"
            )
        url = f"sqlite:///{url}"
    try:
        with storage_errors(url):
            return _database(url)
    except (ValueError, RuntimeError) as error:  # not a URL; made by another version of Optuna
        raise StudyError(f"{hide_password(url)}: {_reason(error, url)}") from error


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """What a storage raises while it is used, as one :class:`StudyError` without the password."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import NoSuchModuleError, SQLAlchemyError

    try:
        yield
    except (ImportError, NoSuchModuleError) as error:
        raise StudyError(f"{hide_password(url)}: its driver is not installed; {_driver(url)}") from error
    except (SQLAlchemyError, StorageInternalError, OSError) as error:
        problem = f"{hide_password(url)}: {_reason(error, url)}"
        raise StudyError(f"{problem}; check the storage, then the same command continues") from error


def hide_password(url: str) -> str:
    """The URL with ``***`` for its password, wherever it stands."""
    for password in _passwords(url):
        url = url.replace(password, "***")
    return url


def _database(url: str) -> BaseStorage:
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import IntegrityError, OperationalError

    if not url.startswith("sqlite"):
        return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
    for attempt in range(5):
        try:
            return RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60}})
        # Processes that make the tables at once are in each other's way.
        except (OperationalError, IntegrityError):
            if attempt == 4 or not Path(url.removeprefix("sqlite:///")).exists():
                raise
            time.sleep(0.2)
    raise AssertionError("the last attempt returns or raises")


def _passwords(url: str) -> list[str]:
    from urllib.parse import unquote

    found = re.findall(r"://[^/?#]*?:([^/?#]*)@", url) + re.findall(r"[?&]password=([^&#]*)", url)
    return sorted({form for text in found for form in (text, unquote(text)) if form}, key=len, reverse=True)


def _reason(error: BaseException, url: str) -> str:
    """The innermost cause in one line: wrappers say what failed, drivers say why."""
    inner = getattr(error, "orig", None) or error
    while inner.__cause__ is not None and str(inner.__cause__):
        inner = getattr(inner.__cause__, "orig", None) or inner.__cause__
    said = inner.args[0] if inner.args else ""
    if isinstance(said, dict):  # pg8000 hands on the fields of PostgreSQL's answer; M is for people
        said = said.get("M", said)
    text = " ".join(str(said if said and len(inner.args) == 1 else inner).split()) or type(inner).__name__
    for password in _passwords(url):
        text = text.replace(password, "***")
    return text[:300]


def _driver(url: str) -> str:
    scheme = url.partition("://")[0]
    dialect, _, driver = scheme.partition("+")
    usual = {"postgresql": "psycopg2-binary", "mysql": "mysqlclient"}
    packages = {"psycopg2": "psycopg2-binary", "psycopg": "psycopg[binary]", "mysqldb": "mysqlclient"}
    name = packages.get(driver, driver) or usual.get(dialect)
    return f"pip install {name}" if name else "install SQLAlchemy's driver for it"
