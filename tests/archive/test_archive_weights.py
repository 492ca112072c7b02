"""Weights of codecs from other packages: an archive keeps what can be used again, or says that it does not."""

from __future__ import annotations

import copy
import hashlib
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from archives import MORE, QUICK, archive, rows, save
from safetensors.torch import load_file

from lof.archive import improve, open_sources
from lof.codecs import Codec, CodecSpec, Continuous, Request, _load, load_codec, register, weights_name
from lof.errors import WeightsError
from lof.jobs import JobSettings
from lof.pools import ThisProcess
from lof.results import Target

NAMES = ("keeps-well", "keeps-none", "keeps-anyway", "keeps-mine")
SCALE = torch.tensor([0.1, 0.5])  # float16 does not hold it
AT_HAND = True


def load(request: Request) -> Codec:
    """A codec with one tensor of weights, shared by two names, that its loader finds rightly or not."""
    name = request.spec.name
    file = "mine.pt" if name == "keeps-mine" else weights_name(name, request.metric, request.quality)
    scale = SCALE
    if request.weights is None and not AT_HAND:
        raise WeightsError(f"{name}: not on this machine")
    if request.weights is not None and name != "keeps-anyway":
        scale = load_file(request.weights / file)["scale"].float()
    codec = copy.copy(load_codec("tiny", device="cpu"))
    codec.name, codec.quality = name, request.quality
    codec.fingerprint = hashlib.sha256(scale.numpy().tobytes()).digest()
    state = {} if name == "keeps-none" else {"scale": scale, "same": scale}
    codec.state = lambda: state  # type: ignore[method-assign]
    return codec


@pytest.fixture(scope="session", autouse=True)
def family() -> None:
    rates = Continuous(1, 8, (0.0018, 0.18))
    register(*(CodecSpec(name, rates, 4, "from a test", hidden=True) for name in NAMES))(load)


def create(folder: Path, codec: str) -> list[str]:
    """Archive a file that is no image; the names of the weights that are kept then."""
    (folder / "photos").mkdir(exist_ok=True)
    (folder / "photos/notes.txt").write_text("words")
    archive(folder / "photos", dst=folder / "dst", settings=replace(QUICK, codec=codec))
    assert not (folder / "dst/.lof/weights").exists()
    return [path.name for path in (folder / "dst").glob("weights/*/*")]


def test_weights_that_make_the_same_codec_are_kept_and_made_anew_where_damaged(tmp_path: Path) -> None:
    assert create(tmp_path, "keeps-well") == ["keeps-well.safetensors"]
    (kept,) = (tmp_path / "dst").glob("weights/*/*")
    written = kept.stat().st_mtime_ns
    create(tmp_path, "keeps-well")
    assert kept.stat().st_mtime_ns == written
    kept.write_bytes(kept.read_bytes()[:-1])
    create(tmp_path, "keeps-well")
    assert torch.equal(load_file(kept)["scale"], SCALE)


def test_a_codec_that_gives_no_weights_is_a_warning(tmp_path: Path) -> None:
    with pytest.warns(
        UserWarning, match=r"^codec keeps-none: .*dst keeps no weights of it, as its state\(\) gives none"
    ):
        assert create(tmp_path, "keeps-none") == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        create(tmp_path, "jpeg")  # which has none


@pytest.mark.parametrize(
    ("codec", "message"),
    [
        ("keeps-anyway", "its loader needs nothing of the folder request.weights"),
        ("keeps-mine", r"cannot be made again of the weights that an archive keeps \(.*/mine.pt"),
    ],
)
def test_a_loader_that_cannot_use_what_is_kept_is_refused_each_time(
    tmp_path: Path, codec: str, message: str
) -> None:
    for _ in range(2):
        with pytest.raises(WeightsError, match=f"^codec {codec}: {message}.*Codecs with weights"):
            create(tmp_path, codec)
        assert not (tmp_path / "dst/weights").exists()
        assert not (tmp_path / "dst/.lof/weights").exists()


def test_improve_takes_the_weights_that_the_archive_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "photos/a.png")
    create(tmp_path, "keeps-well")
    monkeypatch.setitem(globals(), "AT_HAND", False)
    _load.cache_clear()
    settings = replace(MORE, codec="keeps-well")
    sources = open_sources([str(tmp_path / "photos")], tmp_path / "dst")
    with pytest.raises(WeightsError, match="not on this machine"):
        load_codec("keeps-well")
    assert improve(tmp_path / "dst", sources, settings, ThisProcess()).replaced == 1


def test_the_weights_of_all_qualities_that_a_target_takes_are_kept(tmp_path: Path) -> None:
    photos, dst = tmp_path / "photos", tmp_path / "dst"
    for seed, size in enumerate(((320, 240), (64, 48))):
        save(photos / f"{seed}.png", seed, size)
    settings = JobSettings("mean-scale-96", QUICK.profile, target=Target(size=1500), device="cpu")
    assert archive(photos, dst=dst, settings=settings).errors == []
    made = {f"{row.fingerprint}"[:8]: row.quality for row in rows(dst).values() if row.state == "streamed"}
    assert len(made) > 1
    assert made.keys() <= {path.name for path in (dst / "weights").iterdir()}
