"""Studies: better profiles found by Optuna, on the images and rate points that a TOML file names."""

from __future__ import annotations

from lof.study.best import Best, best_profiles, write_best
from lof.study.events import Advanced, Event, Finished, OnEvent, Opened, Started
from lof.study.load import load_study, parse_study
from lof.study.measure import Bench, Figures, read_images
from lof.study.run import run_study
from lof.study.schema import Study
from lof.study.status import Status, study_status
from lof.study.storage import open_storage

__all__ = [
    "Advanced",
    "Bench",
    "Best",
    "Event",
    "Figures",
    "Finished",
    "OnEvent",
    "Opened",
    "Started",
    "Status",
    "Study",
    "best_profiles",
    "load_study",
    "open_storage",
    "parse_study",
    "read_images",
    "run_study",
    "study_status",
    "write_best",
]
