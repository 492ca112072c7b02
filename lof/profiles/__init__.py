"""Profiles: named, ordered lists of search stages, as TOML files with one schema. No torch."""

from lof.profiles.load import (
    BUILT_IN,
    describe_validation,
    load_profile,
    parse_profile,
    profile_folder,
    read_toml,
)
from lof.profiles.schema import (
    NUMBER,
    STAGE_KINDS,
    WHOLE,
    GreedyFlipStage,
    GreedyGradientStage,
    MeanFieldStage,
    OwnStage,
    Profile,
    Ramp,
    RelaxStage,
    Schedule,
    Stage,
)
from lof.profiles.toml import profile_toml

__all__ = [
    "BUILT_IN",
    "NUMBER",
    "STAGE_KINDS",
    "WHOLE",
    "GreedyFlipStage",
    "GreedyGradientStage",
    "MeanFieldStage",
    "OwnStage",
    "Profile",
    "Ramp",
    "RelaxStage",
    "Schedule",
    "Stage",
    "describe_validation",
    "load_profile",
    "parse_profile",
    "profile_folder",
    "profile_toml",
    "read_toml",
]
