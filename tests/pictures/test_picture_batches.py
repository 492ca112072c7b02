"""Pictures to measure on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lof.files.inputs import Source
from lof.pictures.batches import centre_crop, spread
from lof.pictures.reading import picture_of


def test_crops_are_spread_over_the_folder_and_cut_at_the_centre() -> None:
    sources = [Source(Path(f"{i}.png"), Path(f"{i}.png")) for i in range(24)]  # type: ignore[arg-type]
    assert [source.path.stem for source in spread(sources, 4)] == ["3", "9", "15", "21"]
    assert spread(sources, 99) == sources
    pixels = np.arange(10 * 7 * 3, dtype=np.uint8).reshape(10, 7, 3)
    assert np.array_equal(centre_crop(picture_of(pixels), 4).pixels, pixels[3:7, 1:5])
    assert np.array_equal(centre_crop(picture_of(pixels), 99).pixels, pixels)
