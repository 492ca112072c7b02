"""Optuna's databases by URL, with errors that a person can act on."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lof.errors import StudyError, one_line, require

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

BEAT_SECONDS = 30
"""Each process reports so often that the trial it measures is alive."""
GRACE_SECONDS = 120
"""After so long without a report another process takes a trial for abandoned, and measures it again."""
RETRIES = 3


def open_storage(url: str, *, create: bool = True) -> BaseStorage:
    """A database that several processes can share.

    Args:
        url: ``sqlite:///study.db``, a path that ends in ``.db`` or ``.sqlite3``, or another database's URL as
            SQLAlchemy writes it.
        create: make the database, or its tables, where they are missing.

    Raises:
        MissingExtraError: Optuna is not installed.
        StudyError: there is no such database, its driver is missing, it cannot be reached or refuses, or the
            file is something else. No password is in the message.
    """
    require("optuna", "study", "a study")
    if "://" not in url:
        if Path(url).suffix not in (".db", ".sqlite3"):
            raise StudyError(f"{url}: no storage; give sqlite:///FILE.db or the URL of a database")
        url = f"sqlite:///{url}"
    if url.startswith("sqlite:///") and not create and not Path(url.removeprefix("sqlite:///")).is_file():
        raise StudyError(f"{url}: there is no such file on this machine; check the storage")
    with storage_errors(url):
        return _open(_checked(url), create)


def _checked(url: str) -> str:
    from sqlalchemy.engine import make_url

    try:
        make_url(url)
    except ValueError as error:
        raise StudyError(
            f"{hide_password(url)}: no URL of a database ({one_line(error)}); correct it"
        ) from error
    return url


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """What a storage raises while it is used, as one :class:`StudyError` without the password."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import NoSuchModuleError, SQLAlchemyError

    try:
        yield
    except (ImportError, NoSuchModuleError) as error:
        raise StudyError(
            f"{hide_password(url)}: its driver is not installed ({_reason(error, url)}); install that with pip"
        ) from error
    except (SQLAlchemyError, StorageInternalError) as error:
        raise StudyError(
            f"{hide_password(url)}: {_reason(error, url)}; check the storage, then the same command continues"
        ) from error


def hide_password(text: str, url: str | None = None) -> str:
    """A text with ``***`` in place of the password of a URL, by default of the text itself."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    whole = text if url is None else url
    try:
        parsed = make_url(whole)
    except (ArgumentError, ValueError):
        return text
    asked = parsed.query.get("password", "")
    raw = (
        whole.partition("://")[2].rpartition("@")[0].partition(":")[2]
    )  # as it was written, percent signs and all
    for password in {parsed.password, raw, asked if isinstance(asked, str) else ""}:
        text = text.replace(password, "***") if password else text
    return text


def _open(url: str, create: bool) -> BaseStorage:
    from optuna.exceptions import ExperimentalWarning
    from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
    from sqlalchemy.exc import IntegrityError, OperationalError

    is_file = url.startswith("sqlite")
    for attempt in range(5):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)  # both are part of Optuna since 2.9
                return RDBStorage(
                    url,
                    engine_kwargs={"connect_args": {"timeout": 60}} if is_file else {"pool_pre_ping": True},
                    heartbeat_interval=BEAT_SECONDS,
                    grace_period=GRACE_SECONDS,
                    heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(RETRIES),
                    skip_table_creation=not create,
                )
        except RuntimeError as error:  # made by another version of Optuna
            raise StudyError(f"{hide_password(url)}: {_reason(error, url)}") from error
        except (OperationalError, IntegrityError):
            # Processes that make the tables of one file at once are in each other's way.
            if attempt == 4 or not (is_file and create and Path(url.removeprefix("sqlite:///")).exists()):
                raise
            time.sleep(0.2)
    raise AssertionError("the last attempt returns or raises")


def _reason(error: BaseException, url: str) -> str:
    """The innermost cause in one line: wrappers say what failed, drivers say why."""
    inner = getattr(error, "orig", None) or error
    while inner.__cause__ is not None and str(inner.__cause__):
        inner = getattr(inner.__cause__, "orig", None) or inner.__cause__
    return hide_password(" ".join(str(inner).split()) or type(inner).__name__, url)[:300]
