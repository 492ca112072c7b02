"""A study as a job script: ``lof study run`` for ``ray job submit``.

    ray job submit --working-dir pipelines -- python study.py STUDY.toml --storage URL --ray auto --workers 8
    python pipelines/study.py STUDY.toml --images PHOTOS

One JSON object per finished trial on stdout. The storage is used by the driver alone; with Ray, the trials run
on the cluster's workers, which get the images from the driver.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from lof.errors import LofError
from lof.study import Ended, Event, load_study, run_study
from lof.study.distributed import run_study_on_ray


def main() -> int:
    """Exit code 0, or that of the error."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=Path, help="TOML file")
    parser.add_argument("--images", nargs="+", default=[], help="in place of the study's")
    parser.add_argument("--storage", help="in place of the study's")
    parser.add_argument("--trials", type=int)
    parser.add_argument("--timeout", type=float, help="seconds")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--ray", help="local, auto or HOST:PORT")
    parser.add_argument("--workers", type=int, default=2, help="trials at a time, with --ray")
    parser.add_argument("--threads", type=int, default=1, help="of each worker")
    parser.add_argument("--num-gpus", type=float, default=0, help="of each worker, with --ray")
    arguments = parser.parse_args()
    common = {
        "trials": arguments.trials,
        "timeout": arguments.timeout,
        "images": arguments.images,
        "device": arguments.device,
        "on_event": _print,
    }
    try:
        study = load_study(arguments.study)
        if arguments.storage:
            study = study.model_copy(update={"storage": arguments.storage})
        if arguments.ray:
            sizes = {name: getattr(arguments, name) for name in ("workers", "threads", "num_gpus")}
            run_study_on_ray(study, arguments.ray, **sizes, **common)
        else:
            torch.set_num_threads(arguments.threads)
            run_study(study, **common)
    except LofError as error:
        print(f"lof: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _print(event: Event) -> None:
    if isinstance(event, Ended):
        print(json.dumps(vars(event), default=vars), flush=True)


if __name__ == "__main__":
    sys.exit(main())
