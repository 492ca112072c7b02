"""Names that stand for several codecs, of which the profile selects one: the tiers of MSP (Zhang et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping

from lof.codecs import DEFAULT_CODEC

TIERS: dict[str, Mapping[str, str]] = {
    "msp": {"fast": "msp-fast", "medium": "msp-base", "high": "msp-high", "max": "msp-high"},
}
"""Codec by profile name, for every name that stands for several codecs, cheapest first."""

_OTHER_PROFILES = "medium"


def codec_for(name: str | None, profile: str) -> str:
    """The codec that ``name`` stands for beside a profile of that name.

    Args:
        name: of a codec, of several (``msp``), or ``None`` for the default codec.
        profile: its name; one that is not shipped selects as ``medium`` does.
    """
    if name is None:
        return DEFAULT_CODEC
    if name not in TIERS:
        return name
    return TIERS[name].get(profile, TIERS[name][_OTHER_PROFILES])


def tiers_of(name: str | None) -> tuple[str, ...]:
    """Every codec that ``name`` may stand for, cheapest first."""
    if name is None or name not in TIERS:
        return (name or DEFAULT_CODEC,)
    return tuple(dict.fromkeys(TIERS[name].values()))
