"""The engine: runs a profile's stages on a batch of images and keeps the best true cost of each.

It knows no codec and no profile name: codecs are moved through :class:`lof.codecs.Codec`, stages are looked
up by their kind.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass

from torch import Tensor

from lof.codecs import Codec, Latents
from lof.errors import ProfileError
from lof.machine.memory import MemoryKept
from lof.profiles import Profile
from lof.results import TracePoint
from lof.search.objective import Objective
from lof.search.stages import STAGES
from lof.search.state import Progress, Search, Sensitivity


class StopSearch(Exception):
    """Raised by an ``on_progress``: the search ends here and keeps the best that it has found."""


@dataclass(frozen=True)
class Found:
    """The best of a search for one image.

    Attributes:
        latents: (1, C, h, w) float32 by latent tensor, unrounded. Write what :meth:`Codec.symbols` makes of them, as
            it uses the decoder's predictions. Those of a search differ a little, and symbols rounded by them would be
            decoded to other values than the search saw.
        last: where the search stopped, for another one to go on from; not rounded so well as the best.
        evaluations: gradient evaluations spent.
        trace: best true cost after each check, in the search's precision.
    """

    latents: Latents
    last: Latents
    evaluations: int
    trace: list[TracePoint]


def search(
    codec: Codec,
    images: Tensor,
    profile: Profile,
    *,
    lmbda: float,
    metric: str | None = None,
    seed: int = 0,
    region: Tensor | None = None,
    offset: float = 0.0,
    initial: Latents | None = None,
    sensitivity: Sensitivity | None = None,
    thrifty: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> list[Found]:
    """Search better latents for a batch of images of one size.

    Args:
        images: (B, 3, H, W) float32 in [0, 1], unpadded.
        lmbda: λ of ``bpp + λ·D``.
        seed: start of the random numbers; with the same profile and device, equal seeds give equal symbols.
        metric, region, offset: as for :class:`Objective`.
        initial: latents to start from; the encoder's guess if ``None``.
        sensitivity: of an earlier search of these images; of one that is empty, what this search finds is put there.
        thrifty: give memory back between steps, even where there is plenty.
        on_progress: called after every gradient evaluation, in this thread; :class:`StopSearch` of it ends the
            search.

    Raises:
        SearchError: the objective does not fit the images.
        ProfileError: the profile has a learning rate for a latent that the codec lacks.
    """
    refuse_other_latents(codec, profile)
    profile = codec.plan(profile)
    objective = Objective(codec, images, lmbda, metric=metric, region=region, offset=offset)
    latents = codec.analyse(codec.pad(images)) if initial is None else initial
    needed = codec.memory_needed(objective.height, objective.width, objective.batch)
    with nullcontext() if thrifty else MemoryKept(needed) as memory:

        def progressed(progress: Progress) -> None:
            if memory is not None:
                memory.check()
            if on_progress is not None:
                on_progress(progress)

        seeds = [seed] * objective.batch
        state = Search(objective, latents, profile.evaluations, seeds, progressed, sensitivity)
        with suppress(StopSearch):
            _run_stages(state, profile)
    return [
        Found(
            {name: tensor[index : index + 1] for name, tensor in state.best.items()},
            {name: tensor[index : index + 1] for name, tensor in state.latents.items()},
            state.evaluations,
            state.traces[index],
        )
        for index in range(objective.batch)
    ]


def refuse_other_latents(codec: Codec, profile: Profile) -> None:
    """Refuse a learning rate for a latent that the codec does not have; a search would pass it by.

    Raises:
        ProfileError: there is one.
    """
    for stage in profile.stage:
        names = getattr(stage, "learning_rate_of", {})
        # What suits the side information of those that have it is no mistake for the others.
        other = next((name for name in names if name not in (*codec.latents, "z")), None)
        if other is not None:
            raise ProfileError(
                f"{profile.name}: stage.learning_rate_of.{other}: {codec.name} has no such latent; "
                f"use {' or '.join(codec.latents)}"
            )


def _run_stages(state: Search, profile: Profile) -> None:
    state.stages = len(profile.stage)
    for number, stage in enumerate(profile.stage, start=1):
        state.stage, state.stage_name = number, stage.kind
        stopped = state.latents
        state.latents = state.best  # where a stage stops, unless it says that it went elsewhere
        before = state.best_cost
        STAGES[stage.kind](state, stage)
        if stage.kind == "own" and state.codec.held:  # it chooses these alone
            state.latents = stopped | {name: state.best[name] for name in state.codec.held}
            continue
        gain = ((before - state.best_cost) / before).max()
        if float(gain) < profile.stop_below:
            break
