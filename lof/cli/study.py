"""``lof study``: let a search find better profiles than a person guesses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lof.cli import _options as options
from lof.cli import app

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

studies = typer.Typer(
    name="study",
    help="Find profiles with Optuna: `run` a study, look at its `status`, write its `best` as profiles.",
    no_args_is_help=True,
)
app.add_typer(studies)


@studies.callback()
def _installed() -> None:
    from lof.errors import require

    require("optuna", "study", "lof study")


_RUN = (
    "Run the trials of a study: each is a profile, measured with real files on all images and rate points.\n\n"
    "Killed at any moment, the same command continues; run it twice at the same time, and both share the work. "
    "`optuna-dashboard STORAGE` (pip install optuna-dashboard) looks into the same storage."
)
_BEST = (
    "Write the best trial of a study, or its Pareto front, as profiles for `lof optimize --profile FILE`, and "
    "plots of the study beside them."
)

_File = Annotated[
    Path | None,
    typer.Argument(help="The study's TOML file, for its name and storage.", metavar="STUDY.toml"),
]
_Storage = Annotated[
    str | None,
    typer.Option(
        help="sqlite:///FILE.db, or another database's URL.",
        show_default="the study's, else a SQLite file beside it",
    ),
]
_Name = Annotated[str | None, typer.Option(help="Which study, where the storage holds several.")]


@studies.command("run", help=_RUN)
def run(
    file: Annotated[Path, typer.Argument(help="What is searched, as TOML.", metavar="STUDY.toml")],
    *,
    images: Annotated[
        list[str] | None,
        typer.Option(
            help="Image, folder or quoted glob in place of the study's; may be given several times."
        ),
    ] = None,
    storage: _Storage = None,
    trials: Annotated[
        int | None,
        typer.Option(
            min=1, help="Finished trials, of all calls and processes together.", show_default="the study's"
        ),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Seconds after which no new trial begins.", show_default=False)
    ] = None,
    device: options.Device = "auto",
    jobs: Annotated[
        int | None,
        options.default(
            "1; with --ray, what there is room for",
            "Trials at a time, each in a process of its own.",
            options.WORKERS,
            min=1,
        ),
    ] = None,
    threads: options.Threads = None,
    ray: Annotated[
        str | None,
        typer.Option(
            help="Workers of a Ray cluster: local, auto or HOST:PORT. All its machines must reach the storage.",
            metavar="CLUSTER",
            show_default=False,
            rich_help_panel=options.WORKERS,
        ),
    ] = None,
    num_gpus: options.NumGpus = None,
    json: Annotated[
        bool, options.flag("--json", "Print one JSON object per finished trial to stdout, and nothing else.")
    ] = False,
) -> None:
    from lof.cli._study import StudyDisplay
    from lof.pools import make_pool
    from lof.study import load_study, run_study

    pool = make_pool(jobs, threads=threads, ray=ray, num_gpus=num_gpus)
    study = load_study(file)
    if storage is not None:
        study = study.model_copy(update={"storage": storage})
    with StudyDisplay(study, json=json) as display:
        status = run_study(
            study,
            pool=pool,
            trials=trials,
            timeout=timeout,
            images=images or (),
            device=device,
            on_event=display,
        )
        display.finish(status, trials or study.trials)


@studies.command("best", help=_BEST)
def best(
    file: _File = None,
    *,
    storage: _Storage = None,
    name: _Name = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", help="Folder for the profiles.", parser=options.path, show_default="NAME-best"
        ),
    ] = None,
) -> None:
    from lof.cli._study import print_best
    from lof.study import best_profiles, write_best

    opened, name = _open(file, storage, name)
    if out is None:
        out = Path(f"{best_profiles(opened, name)[0].study}-best")
    print_best(*write_best(opened, out, name))


@studies.command("status", help="Say how many trials are done, running and failed, and what is best so far.")
def status(
    file: _File = None,
    *,
    storage: _Storage = None,
    name: _Name = None,
    json: Annotated[bool, options.flag("--json", "Print the same to stdout, as one JSON object.")] = False,
) -> None:
    from lof.cli._study import print_status, print_status_json
    from lof.study import best_profiles, study_status

    opened, name = _open(file, storage, name)
    found = study_status(opened, name)
    best = best_profiles(opened, name) if found.complete else []
    (print_status_json if json else print_status)(found, best)


def _open(file: Path | None, storage: str | None, name: str | None) -> tuple[BaseStorage, str | None]:
    from lof.errors import UsageError
    from lof.study import load_study, open_storage

    study = None if file is None else load_study(file)
    url = storage or (study.storage if study else None)
    if url is None:
        raise UsageError("name a study's TOML file, or give --storage")
    return open_storage(url, create=False), name or (study.name if study else None)
