"""``--profile auto``: the most thorough profile, and the best tier, that fit a time budget."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lof.codecs import tiers_of
from lof.errors import LofError, UsageError
from lof.files.atomic import write_atomically
from lof.files.storage import Location, read_bytes
from lof.jobs.cost import Cost
from lof.jobs.manifest import FOLDER
from lof.profiles import BUILT_IN, Profile, load_profile
from lof.report.figures import duration

_CHOICES = "choices.json"
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?")


@dataclass(frozen=True)
class Choice:
    """A profile, a codec, and why they were picked in one sentence."""

    profile: Profile
    codec: str
    reason: str


def parse_duration(text: str) -> float:
    """Seconds of ``20s``, ``90m``, ``2h``, ``1h30m`` or a bare number of seconds.

    Raises:
        UsageError: it is none of these, or not above 0.
    """
    match = _DURATION.fullmatch(text.strip())
    hours, minutes, seconds = (float(part or 0) for part in match.groups()) if match else (0.0, 0.0, 0.0)
    total = 3600 * hours + 60 * minutes + seconds
    if not total > 0:
        raise UsageError(f"duration {text!r}: give one such as 20s, 90m, 2h or 1h30m")
    return total


def kept_choice(out: Location, asked: str) -> Choice | None:
    """What was chosen for a folder before, where the same was asked for.

    Args:
        asked: the limits, in any text.
    """
    try:
        found = _kept(out)[asked]
        profile, codec = found["profile"], str(found["codec"])
        return Choice(load_profile(profile), codec, f"profile {profile} with {codec}: as before in {out}")
    except (KeyError, TypeError, LofError):
        return None


def keep_choice(out: Location, asked: str, choice: Choice) -> None:
    """Remember a choice: another measurement may lead to another one, and a job refuses to change its settings.

    Raises:
        OutputError: the folder cannot be written.
    """
    found = _kept(out) | {asked: {"profile": choice.profile.name, "codec": choice.codec}}
    write_atomically(out / FOLDER / _CHOICES, json.dumps(found).encode())


def _kept(out: Location) -> dict[str, Any]:
    try:
        found = json.loads(read_bytes(out / FOLDER / _CHOICES))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def choose(
    codec: str | None,
    cost_of: Callable[[str], Cost],
    sizes: Sequence[int],
    *,
    budget: float | None = None,
    deadline: float | None = None,
    workers: int = 1,
) -> Choice:
    """Pick the most thorough shipped profile that fits, then the best tier that still fits with it.

    The profile goes first, since a search brings more than a tier does.

    Args:
        codec: name, name of several (``msp``), or ``None`` for the default.
        cost_of: measured cost by codec name; asked only for codecs that may be picked.
        sizes: pixels of each image that is to be searched.
        budget: seconds that the largest image may take.
        deadline: seconds that the whole job may take, with ``workers`` at a time.

    Raises:
        UsageError: neither or both limits, or not even the cheapest choice fits.
    """
    if (budget is None) == (deadline is None):
        raise UsageError("--profile auto: give --budget (per image, such as 20s) or --deadline (2h)")
    tiers = tiers_of(codec)
    pixels = max(sizes, default=0) if budget is not None else sum(sizes)
    limit = budget if budget is not None else (deadline or 0) * workers
    asked = "per image" if budget is not None else f"with {workers} worker{'s' if workers > 1 else ''}"
    for name in reversed(BUILT_IN):
        profile = load_profile(name)
        for tier in reversed(tiers):
            estimate = cost_of(tier).seconds(profile, pixels)
            if estimate <= limit:
                return Choice(
                    profile, tier, _reason(name, tier, tiers, estimate / _share(budget, workers), asked)
                )
    cheapest = cost_of(tiers[0]).seconds(load_profile(BUILT_IN[0]), pixels) / _share(budget, workers)
    option = "--budget" if budget is not None else "--deadline"
    raise UsageError(
        f"{option}: {BUILT_IN[0]} with {tiers[0]} already takes about {duration(cheapest)} here {asked}; "
        f"give more time, fewer or smaller images, or more workers"
    )


def _share(budget: float | None, workers: int) -> int:
    return 1 if budget is not None else workers


def _reason(profile: str, tier: str, tiers: Sequence[str], estimate: float, asked: str) -> str:
    what = f"profile {profile}" + (f", tier {tier}" if len(tiers) > 1 else "")
    last = profile == BUILT_IN[-1] and tier == tiers[-1]
    why = "the most thorough there is" if last else "the most thorough that fits"
    return f"{what}: {why}, about {duration(estimate)} {asked} by what this machine measured"
