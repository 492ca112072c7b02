"""A few photographs to start with, copied from the installed scikit-image. Nothing is downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from lof.errors import ImageError, OutputError, require
from lof.files.atomic import write_atomically

CREDITS_NAME = "CREDITS.txt"


@dataclass(frozen=True)
class Sample:
    """A photograph that scikit-image carries in its package, and whom to thank for it."""

    name: str
    credit: str


SAMPLES = (
    Sample(
        "astronaut.png", "Astronaut Eileen Collins. NASA, no known copyright restrictions, public domain."
    ),
    Sample("chelsea.png", "Chelsea the cat. Stéfan van der Walt, CC0."),
    Sample("coffee.png", "A cup of coffee at Pikolo Espresso Bar. Rachel Michetti, CC0."),
    Sample("rocket.jpg", "Launch of DSCOVR on a Falcon 9. SpaceX, released into the public domain."),
)


def write_samples(folder: Path) -> list[Path]:
    """Put the sample photographs and their credits into ``folder``, as the files that scikit-image ships.

    A file that is there already with the same content is left alone.

    Returns:
        The paths of the photographs, in the order of ``SAMPLES``.

    Raises:
        MissingExtraError: scikit-image is not installed.
        OutputError: a different file of that name is there, or the folder cannot be written. Nothing has
            been written in the first case.
        ImageError: the installed scikit-image does not carry a photograph.
    """
    require("skimage", "samples", "lof samples")
    files = {sample.name: content(sample) for sample in SAMPLES}
    lines = ["Photographs from scikit-image (https://scikit-image.org), unchanged.", ""]
    lines += [f"{sample.name}: {sample.credit}" for sample in SAMPLES]
    files[CREDITS_NAME] = ("\n".join(lines) + "\n").encode()
    missing = [name for name, data in files.items() if not _is_there(folder / name, data)]
    for name in missing:
        write_atomically(folder / name, files[name])
    return [folder / sample.name for sample in SAMPLES]


def content(sample: Sample) -> bytes:
    """The file of a sample photograph.

    Raises:
        ImageError: the installed scikit-image does not carry it.
    """
    try:
        return resources.files("skimage").joinpath("data", sample.name).read_bytes()
    except OSError as error:
        raise ImageError(
            f"{sample.name}: not in the installed scikit-image; install scikit-image again"
        ) from error


def _is_there(path: Path, data: bytes) -> bool:
    try:
        same = path.read_bytes() == data
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise OutputError(f"{path}: cannot be read ({error.strerror}); choose another folder") from error
    if not same:
        raise OutputError(f"{path}: is another file already; move it away or choose another folder")
    return True
