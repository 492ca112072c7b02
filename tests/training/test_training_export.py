"""What is trained, measured and exported: weights, figures, model cards."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_training import LADDER, recipe_of
from test_training_runs import exact_part

import lof.cli.train  # noqa: F401  (adds its commands)
from lof import api
from lof.codecs import codec_spec, load_codec, trainable
from lof.codecs.training import State
from lof.errors import TrainingError
from lof.pictures.picture import Picture
from lof.pictures.reading import read_picture
from lof.training import export_weights, train
from lof.training.card import PUBLISHED_ON_KODAK, bd_rate, model_card
from lof.training.measure import measure, summarise
from lof.training.trained import read_trained


def test_exported_weights_are_what_was_measured(tmp_path: Path, photos: Path) -> None:
    data = {"train": [str(photos)], "validation": [str(photos)]}
    run = train(recipe_of(photos, rung=LADDER, data=data), tmp_path / "run", device="cpu")
    low, high = export_weights(run, tmp_path / "w", measure_on=photos)
    assert (low.quality, high.quality) == (4, 6)
    validated = [r for r in exact_part(tmp_path / "run") if r["kind"] == "validation"]
    assert low.summary is not None
    assert low.summary.bpp == pytest.approx(validated[-1]["bpp"])
    assert low.summary.psnr == pytest.approx(validated[-1]["psnr"])
    assert low.summary.images == 4
    codec = load_codec("tiny", 4, weights=tmp_path / "w", device="cpu")
    assert codec.fingerprint.hex() == low.fingerprint
    assert low.fingerprint in low.registry_line
    assert 'RatePoint(0.013, "' in low.registry_line
    card = (tmp_path / "w" / "tiny.md").read_text()
    assert f"| {low.summary.bpp:.4f} | {low.summary.psnr:.2f} |" in card
    assert low.fingerprint in card
    assert "MeanScaleHyperprior(N=16, M=24)" in card
    assert "Published figures are for Kodak" in card


def test_measured_rates_are_lengths_of_files(photos: Path) -> None:
    codec = load_codec("tiny", 4, device="cpu")
    pixels = read_picture(next(photos.glob("*.png"))).pixels
    (measured,) = measure(codec, [Picture(pixels)])
    data = api.encode(pixels, codec=codec)
    assert measured.size == len(data)
    error = pixels.astype(float) - api.decode(data).pixels
    assert measured.mse == pytest.approx(float((error**2).mean()))
    assert summarise([measured]).psnr == pytest.approx(measured.psnr)


def test_checkpoints_of_a_plain_script_are_exported_with_their_averages(tmp_path: Path) -> None:
    net = trainable("tiny").build({})
    sd = net.state_dict()
    ema = {k: v + 0.25 for k, v in sd.items() if v.is_floating_point() and "bound" not in k}
    torch.save({"net": sd, "ema": ema, "step": 77}, tmp_path / "q.pt")
    (point,) = export_weights(
        [tmp_path / "q.pt"], tmp_path / "w", codec="tiny", quality=4, history={"data": "mine"}
    )
    state = read_trained(point.path).state
    assert torch.equal(state["g_a.0.weight"], (sd["g_a.0.weight"] + 0.25).half().float())
    assert point.history == {"data": "mine"}
    assert "| 4 | 0.013 | mine |" in (tmp_path / "w" / "tiny.md").read_text()


def test_what_cannot_be_exported_is_one_clear_error(tmp_path: Path) -> None:
    torch.save({"step": 3}, tmp_path / "empty.pt")
    with pytest.raises(TrainingError, match=r"empty\.pt: holds no weights"):
        export_weights([tmp_path / "empty.pt"], tmp_path)
    with pytest.raises(TrainingError, match=r"gone\.pt: does not exist"):
        export_weights([tmp_path / "gone.pt"], tmp_path)
    sd = trainable("tiny").build({}).state_dict()
    for name, state in {
        "whole": sd,
        "part": {key: value for key, value in sd.items() if key != "g_s.0.weight"},
        "shape": sd | {"g_s.0.weight": torch.zeros(1)},
        "other": {"weight": torch.zeros(1)},
    }.items():
        torch.save({"sd": state}, tmp_path / f"{name}.pt")
    with pytest.raises(TrainingError, match=r"whole\.pt: does not say its codec; name it with --codec"):
        export_weights([tmp_path / "whole.pt"], tmp_path)
    with pytest.raises(TrainingError, match=r"whole\.pt: does not say its rate point; .*--quality"):
        export_weights([tmp_path / "whole.pt"], tmp_path, codec="tiny")
    for name, words in (
        ("part", r"g_s.0.weight is missing"),
        ("shape", "has another shape"),
        ("other", "sizes"),
    ):
        with pytest.raises(TrainingError, match=rf"{name}\.pt: not weights of this architecture .*{words}"):
            export_weights([tmp_path / f"{name}.pt"], tmp_path, codec="tiny", quality=4)
    assert not list(tmp_path.glob("*.safetensors"))


def test_what_was_trained_for_a_quality_that_no_file_can_state_is_exported_as_another(
    tmp_path: Path, photos: Path
) -> None:
    (run,) = train(recipe_of(photos, rung=LADDER[:1]), tmp_path / "run", device="cpu")
    content = torch.load(run, weights_only=True)
    content["recipe"]["rung"][0]["quality"] = 4.7  # as earlier versions of lof did
    torch.save(content, run)
    with pytest.raises(TrainingError, match=r"quality-6\.pt: quality 4\.7: no file can state it; take"):
        export_weights([run], tmp_path / "w")
    assert not (tmp_path / "w").exists()
    assert export_weights([run], tmp_path / "w", quality=4.5)[0].quality == 4.5


def filled(key: str, value: float) -> Callable[[State], State]:
    return lambda state: {key: torch.full_like(state[key], value)}


def tails(*numbers: float) -> Callable[[State], State]:
    return lambda _: {"tails": torch.tensor(numbers, dtype=torch.float16)}


def sizes_as_floats(state: State) -> State:
    return {"sizes": state["sizes"].float()}


def wide(width: int) -> Callable[[State], State]:
    return lambda state: {"sizes": torch.cat([state["sizes"][:5], torch.tensor([width]), state["sizes"][6:]])}


@pytest.mark.parametrize(
    ("codec", "damage", "words"),
    [
        ("lapped-tiny", tails(math.nan, 0, 0), "(tails holds numbers that are not finite)"),
        ("lapped-tiny", tails(0, 200, 200), "(damaged, or of another kind)"),
        ("lapped-tiny", tails(0, 9, 9), "(tails hold numbers that cannot be)"),
        ("lapped-tiny", sizes_as_floats, "(damaged, or of another kind)"),
        ("lapped-tiny", wide(10**6), "(they state sizes that ask for more numbers than they hold)"),
        ("lapped-tiny", wide(10**9), "cannot ship as weights of lapped-tiny"),
        ("lapped-tiny", filled("transforms.klt.weight", math.inf), "(transforms.klt.weight holds numbers"),
        ("lapped-tiny", filled("side_scale", 1e6), "(side_scale holds numbers that are not finite)"),
        ("jpeg-descriptors-tiny", sizes_as_floats, "(damaged, or of another kind)"),
        (
            "jpeg-descriptors-tiny",
            filled("context.leave.bias", math.nan),
            "(context.leave.bias holds numbers",
        ),
        ("tiny", filled("g_s.0.weight", math.nan), "(g_s.0.weight holds numbers that are not finite)"),
        ("tiny", filled("g_s.0.weight", 1e6), "(g_s.0.weight holds numbers that are not finite)"),
        (
            "tiny",
            filled("entropy_bottleneck.quantiles", 1e6),
            "(a factorised prior is wider than any latent)",
        ),
        ("msp-tiny", filled("g_a.0.weight", math.nan), "(g_a.0.weight holds numbers that are not finite)"),
    ],
)
def test_damaged_weights_are_one_clear_error_and_leave_nothing(
    tmp_path: Path, codec: str, damage: Callable[[State], State], words: str
) -> None:
    state = trainable(codec).build({}).state_dict()
    path, quality = tmp_path / "q.pt", None if codec_spec(codec).rates.one_network else 4
    torch.save({"sd": {**state, **damage(state)}}, path)
    line = rf"^{path}: .*{re.escape(words)}.*; name another checkpoint$"
    with pytest.raises(TrainingError, match=line):
        export_weights([path], tmp_path / "w", codec=codec, quality=quality)
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    "content", ["hello\n", "all weights are here", ".PHONY: all", "", "\x89PNG\r\n\x1a\n"]
)
def test_a_file_that_is_no_checkpoint_is_one_line_of_our_own(tmp_path: Path, content: str) -> None:
    path = tmp_path / "h.pt"
    path.write_bytes(content.encode("latin-1"))
    words = f"{path}: cannot be read as a checkpoint (damaged, or something else); name another file"
    with pytest.raises(TrainingError, match=re.escape(words)):
        export_weights([path], tmp_path / "w")


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"cannot be read \(Is a directory\); name a checkpoint"):
        export_weights([tmp_path], tmp_path / "w")


def test_bd_rate_is_the_mean_difference_of_rate_at_equal_quality() -> None:
    assert bd_rate(PUBLISHED_ON_KODAK) == pytest.approx(0, abs=1e-9)
    assert bd_rate([(1.2 * rate, psnr) for rate, psnr in PUBLISHED_ON_KODAK]) == pytest.approx(20)
    assert bd_rate([(0.9 * r, p) for r, p in PUBLISHED_ON_KODAK[1:5]]) == pytest.approx(-10, abs=0.5)
    assert bd_rate([(0.5, 20.0), (0.6, 28.0)]) is None
    assert bd_rate([(0.5, 31.0)]) is None
    assert bd_rate([(0.5, 33.0), (0.6, 31.0)]) is None


def test_a_card_measured_on_kodak_stands_beside_the_published_figures(tmp_path: Path, photos: Path) -> None:
    run = train(recipe_of(photos, rung=LADDER), tmp_path / "run", device="cpu")
    points = export_weights(run, tmp_path / "w", measure_on=photos)
    published = (PUBLISHED_ON_KODAK[3], PUBLISHED_ON_KODAK[5])
    good = [
        replace(point, summary=replace(point.summary, bpp=1.1 * rate, psnr=psnr))
        for point, (rate, psnr) in zip(points, published, strict=True)
    ]
    card = model_card(good, "kodak", True)
    assert "| 4 | 0.5067 | 32.95 |" in card
    assert "| 0.461 | 32.95 |" in card
    assert "BD-rate against that curve: +" in card
    assert "(files larger at equal PSNR" in card


def test_pictures_to_measure_on_may_be_one_file_or_a_glob(tmp_path: Path, photos: Path) -> None:
    run = train(recipe_of(photos, rung=LADDER[:1]), tmp_path / "run", device="cpu")
    (one,) = sorted(photos.glob("*.png"))[:1]
    for pictures, count in ((one, 1), (photos / "*.png", len(list(photos.glob("*.png"))))):
        (made,) = export_weights(run, tmp_path / "w", measure_on=pictures)
        assert made.summary is not None
        assert made.summary.images == count
