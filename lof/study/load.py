"""Studies from TOML files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from lof.codecs import codec_spec
from lof.errors import ProfileError, StudyError, UnknownCodecError
from lof.profiles import Profile, describe_validation, load_profile, parse_profile, read_toml
from lof.study.schema import Crops, Pruner, Range, Sampler, Study
from lof.study.space import check_space, enqueued_points, typed_space


def load_study(path: str | Path) -> Study:
    """Read a study's TOML file.

    Raises:
        StudyError: it cannot be read or does not fit the schema; the message names file, key and what is
            allowed.
    """
    path = Path(path)
    content = read_toml(path, StudyError, "name a study in TOML")
    content.setdefault("storage", f"sqlite:///{path.resolve().with_suffix('.db')}")
    return parse_study(content, str(path), path.resolve().parent)


def parse_study(content: dict[str, Any], origin: str = "study", folder: Path = Path()) -> Study:
    """A study from already parsed TOML; ``folder`` is what its paths are relative to.

    Raises:
        StudyError: it does not fit the schema, or names a codec or a profile that does not exist.
    """
    try:
        study = Study.model_validate(content)
        spec = codec_spec(study.codec)
        qualities = tuple(sorted(study.qualities)) or (float(spec.default_quality),)
        for quality in qualities:
            spec.rate_point(spec.made_for(study.metric), quality)
        base = _base(study.base, origin, folder)
        check_space(study.space, base)
        space = typed_space(study.space, base)
        points = enqueued_points(study.enqueue, space, base, lambda name: _named(name, folder))
    except ValidationError as error:
        raise StudyError(f"{origin}: {_describe(error, content)}") from error
    except (UnknownCodecError, StudyError, ProfileError) as error:
        raise StudyError(f"{origin}: {str(error).removeprefix(f'{origin}: ')}") from error
    return study.model_copy(
        update={
            "qualities": qualities,
            "images": tuple(str(folder / image) for image in study.images),
            "weights": None if study.weights is None else str(folder / study.weights),
            "base": base.model_dump(mode="json", exclude={"name", "summary"}),
            "enqueue": tuple(points),
            "space": space,
        }
    )


def _base(base: str | dict[str, Any], origin: str, folder: Path) -> Profile:
    if isinstance(base, str):
        return _named(base, folder)
    return parse_profile({"name": "base"} | base, f"{origin}: base")


def _named(name: str, folder: Path) -> Profile:
    return load_profile(folder / name if name.endswith(".toml") else name)


_TABLES: dict[str, type[BaseModel]] = {
    "crops": Crops,
    "sampler": Sampler,
    "pruner": Pruner,
    "space": Range,
}


def _describe(error: ValidationError, content: dict[str, Any]) -> str:
    where = error.errors()[0]["loc"]
    table = _TABLES.get(str(where[0]), Study) if len(where) > 1 else Study
    return describe_validation(error, content, f"allowed: {', '.join(table.model_fields)}")
