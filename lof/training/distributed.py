"""The same recipe on several GPUs or machines, with Ray Train (``pip install 'lof[ray]'``).

The driver only submits; every worker runs :func:`lof.training.train` on its share of each batch, with all
pictures in its own memory. The first worker writes the run's folder, which all must be able to reach (one
machine, or a shared file system). A worker that dies is replaced and the run goes on from its checkpoint.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lof.errors import TrainingError, require
from lof.training.checkpoint import make_run_folder
from lof.training.loop import Group, train
from lof.training.recipe import Recipe, parse_recipe


def train_distributed(
    recipe: Recipe, folder: Path, workers: int, *, use_gpu: bool, restarts: int = 3
) -> list[Path]:
    """:func:`lof.training.train` by ``workers`` processes, one GPU each with ``use_gpu``; runs in the driver.

    The gradients of a step are those of one process with the same batch, up to the random numbers drawn.

    Args:
        folder: as for :func:`train`, reachable under this path from every worker.
        restarts: how many times workers that died are replaced.

    Raises:
        MissingExtraError: Ray is not installed.
        TrainingError: the batch cannot be shared out, or the run failed.
        OutputError: ``folder`` cannot be created.
    """
    require("ray", "ray", "training with several workers")
    recipe.check_shared(workers)
    # Ray would otherwise rebuild the caller's environment for each worker when the driver runs under uv.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    import ray.train
    from ray.train.torch import TorchTrainer

    folder = folder.resolve()
    make_run_folder(folder)
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"recipe": _absolute(recipe).model_dump(mode="json"), "folder": str(folder)},
        scaling_config=ray.train.ScalingConfig(num_workers=workers, use_gpu=use_gpu),
        run_config=ray.train.RunConfig(
            name="ray",
            storage_path=str(folder),
            failure_config=ray.train.FailureConfig(max_failures=restarts),
        ),
    )
    try:
        trainer.fit()
    except Exception as error:
        raise TrainingError(
            f"{folder}: a worker failed ({_reason(error)}); the same command continues"
        ) from error
    return [folder / name for name in recipe.checkpoints]


def _worker(config: dict[str, Any]) -> None:
    """Runs in every worker; takes a dictionary since it is sent from the driver."""
    import ray.train
    import ray.train.torch
    import torch.distributed

    context = ray.train.get_context()
    group = Group(
        rank=context.get_world_rank(),
        world=context.get_world_size(),
        wrap=ray.train.torch.prepare_model,
        on_log=lambda record: ray.train.report(dict(record)),
        wait=torch.distributed.barrier,
    )
    device = ray.train.torch.get_device()
    train(parse_recipe(config["recipe"]), Path(config["folder"]), device=str(device), group=group)


def _absolute(recipe: Recipe) -> Recipe:
    """Workers have other working folders."""

    def absolute(path: str | None) -> str | None:
        return str(Path(path).resolve()) if path else path

    data = recipe.data
    folders = {name: tuple(map(absolute, getattr(data, name))) for name in ("train", "validation")}
    data = data.model_copy(update={**folders, "latents": absolute(data.latents)})
    return recipe.model_copy(update={"data": data, "init": absolute(recipe.init)})


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
