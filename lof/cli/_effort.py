"""``--profile auto``: what `lof optimize` picks, and says why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from lof.errors import UsageError

if TYPE_CHECKING:
    from lof.codecs import Codec
    from lof.files.inputs import Source
    from lof.profiles import Profile

AUTO = "auto"


def pick(
    codec: str | None,
    load: Callable[[str], Codec],
    sources: Sequence[Source],
    *,
    budget: str | None,
    deadline: str | None,
    jobs: int | None,
    threads: int | None,
    ray: str | None,
) -> tuple[Profile, str]:
    """Profile and codec for these sources; the choice and its reason go to stderr.

    It depends on all sources, also on those that are done: a resumed job picks the same again.

    Raises:
        UsageError: no limit, two, or one that nothing fits.
    """
    from lof.jobs.batches import size_of
    from lof.jobs.cost import Cost, measured_cost
    from lof.jobs.effort import choose, parse_duration
    from lof.pools import threads_per_worker

    console = Console(stderr=True, highlight=False)
    if deadline is not None and ray is not None and jobs is None:
        raise UsageError("--deadline with --ray: say how many workers there will be with --jobs")
    workers = jobs or 1
    each = threads if threads is not None or workers == 1 else threads_per_worker(workers)

    def cost_of(name: str) -> Cost:
        with console.status(f"measuring what {name} costs here…"):
            return measured_cost(load(name), each)

    choice = choose(
        codec,
        cost_of,
        [size[0] * size[1] for source in sources if (size := size_of(source))],
        budget=None if budget is None else parse_duration(budget),
        deadline=None if deadline is None else parse_duration(deadline),
        workers=workers,
    )
    console.print(choice.reason)
    return choice.profile, choice.codec
