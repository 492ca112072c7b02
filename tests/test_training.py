"""Training: recipes, data, the loss, exact resume, divergence, export."""

from __future__ import annotations

import copy
import json
import math
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compressai.layers import MaskedConv2d
from PIL import Image
from typer.testing import CliRunner

import lof.cli.train  # noqa: F401  (adds its commands)
from lof import api
from lof.cli import app
from lof.codecs import codec_spec, codec_specs, load_codec
from lof.errors import TrainingError
from lof.images import Picture, read_picture
from lof.samples import write_samples
from lof.training import export_weights, load_recipe, parse_recipe, train
from lof.training.card import PUBLISHED_ON_KODAK, bd_rate, model_card
from lof.training.checkpoint import load_checkpoint
from lof.training.cpu import speed_up
from lof.training.data import load_pool
from lof.training.journal import Journal
from lof.training.loop import Event, Finished, Logged, Started
from lof.training.loss import RateDistortion
from lof.training.measure import measure, summarise
from lof.training.recipe import BUILT_IN, Recipe, Rung, Schedule
from lof.training.step import Stepper, learning_rate
from lof.training.throughput import compare
from lof.training.trained import read_trained

CPU = torch.device("cpu")
EVERY_STEP = 1e-9  # minutes between checkpoints


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    write_samples(folder)
    for path in folder.glob("*.*g"):
        with Image.open(path) as image:
            image.convert("RGB").crop((100, 100, 330, 296)).save(path)
    return folder


def recipe_of(photos: Path, **changes: Any) -> Recipe:
    content: dict[str, Any] = {
        "name": "test",
        "codec": "tiny",
        "sizes": [16, 24],
        "crop": 64,
        "batch": 2,
        "log_every": 3,
        "validate_every": 100,
        "precision": "fp32",
        "rung": [{"quality": 4, "lmbda": 0.013, "steps": 8, "learning_rate": 1e-3}],
        "data": {"train": [str(photos)]},
    }
    return parse_recipe(content | changes)


LADDER = [
    {"quality": 6, "lmbda": 0.0483, "steps": 4, "learning_rate": 1e-3},
    {"quality": 4, "lmbda": 0.013, "steps": 1, "learning_rate": 1e-9},
]


class Cut(Exception):
    pass


def cut_at(total_step: int) -> Any:
    """An observer that ends the run as it logs this step."""

    def observe(event: Event) -> None:
        if isinstance(event, Logged) and event.record["total_step"] == total_step:
            raise Cut

    return observe


def exact_part(folder: Path) -> list[dict[str, Any]]:
    timed = ("seconds", "steps_per_second")
    return [{k: v for k, v in r.items() if k not in timed} for r in Journal(folder / "log.jsonl").read()]


def test_every_shipped_recipe_loads_and_names_a_registered_codec_of_its_sizes() -> None:
    for name in BUILT_IN:
        recipe = load_recipe(name)
        assert recipe.name == name
        codecs = [recipe.spec, *([codec_spec(recipe.frozen)] if recipe.frozen else [])]
        assert recipe.sizes in {p.sizes for codec in codecs for p in codec.rate_points.values()}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sise = 3", "sise: unknown key"),
        ("[[rung]]\nquality = 4\nlmbda = -1\nsteps = 3", "rung[0].lmbda"),
        ("crop = 100", "crop: "),
        ("[data]\nfolder = 'x'", "data.folder: unknown key"),
        ("crop = = 3", "not valid TOML"),
        ("codec = 'tinny'", "codec: "),
    ],
)
def test_a_wrong_recipe_is_one_line_with_file_and_key(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "mine.toml"
    good = {"codec": '"tiny"', "sizes": "[16, 24]"}
    lines = [f"{k} = {v}" for k, v in good.items() if not text.startswith(k)]
    rung = "" if "[[rung]]" in text else "[[rung]]\nquality = 4\nlmbda = 0.013\nsteps = 3\n"
    top, table = ("", text) if text.startswith("[") else (text, "")
    path.write_text("\n".join([*lines, top, rung, table]))
    with pytest.raises(TrainingError) as caught:
        load_recipe(path)
    assert str(path) in str(caught.value)
    assert words in str(caught.value)


def test_an_unknown_recipe_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(TrainingError, match="did you mean tiny"):
        load_recipe("tyni")


def test_a_ladder_must_go_down(photos: Path) -> None:
    with pytest.raises(TrainingError, match="highest rate first"):
        recipe_of(photos, rung=LADDER[::-1])


def test_bad_files_are_skipped_by_name_and_the_rest_is_trained_on(tmp_path: Path, photos: Path) -> None:
    good = Image.open(next(photos.glob("*.png"))).convert("RGB")
    good.save(tmp_path / "good.png")
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    Image.new("CMYK", (200, 200)).save(tmp_path / "print.jpg")
    good.crop((0, 0, 63, 200)).save(tmp_path / "narrow.png")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:5000])
    events: list[Event] = []
    train(recipe_of(tmp_path), tmp_path / "run", device="cpu", on_event=events.append)
    started = next(e for e in events if isinstance(e, Started))
    skipped = {item.path.name: item.reason for item in started.skipped}
    assert started.pictures == 1
    assert skipped.keys() == {"dot.png", "print.jpg", "narrow.png", "broken.jpg", "cut.png"}
    assert all(name in reason for name, reason in skipped.items())
    assert any(isinstance(e, Finished) for e in events)


def test_a_folder_without_usable_pictures_is_an_error_that_says_why(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    with pytest.raises(TrainingError, match=r"nothing to train on.*dot\.png"):
        load_pool([str(tmp_path)], 64, CPU)
    with pytest.raises(TrainingError, match="missing"):
        load_pool([str(tmp_path / "missing")], 64, CPU)


def test_crops_are_exact_cuts_of_the_pictures_half_of_them_flipped(tmp_path: Path) -> None:
    rows, columns = np.mgrid[0:150, 0:200]
    Image.fromarray(np.stack([rows, columns, 0 * rows], -1).astype(np.uint8)).save(tmp_path / "place.png")
    pool = load_pool([str(tmp_path)], 64, CPU)
    assert pool.images[0].dtype == torch.uint8
    batch = pool.batch(200, seed=1)
    assert batch.shape == (200, 3, 64, 64)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    places = (batch * 255).round().int()
    down = places[:, 0].diff(dim=1)
    across = places[:, 1].diff(dim=2)
    assert (down == 1).all()
    assert (across.abs() == 1).all()
    assert 60 < int((across[:, 0, 0] == -1).sum()) < 140
    tops, lefts = places[:, 0, 0, 0], places[:, 1, 0].min(dim=1).values
    assert tops.max() > 80
    assert tops.min() < 6
    assert lefts.max() > 125
    assert lefts.min() < 10
    assert torch.equal(batch, pool.batch(200, seed=1))
    assert not torch.equal(batch, pool.batch(200, seed=2))


@pytest.mark.parametrize("name", sorted({s.implementation for s in codec_specs(hidden=True)}))
def test_every_registered_class_trains(name: str) -> None:
    spec = next(s for s in codec_specs(hidden=True) if s.implementation == name)
    torch.manual_seed(0)
    sizes = next(iter(spec.rate_points.values())).sizes if spec.source == "bundled" else (8, 12)
    net = spec.load_class().network(*sizes)
    for module in net.modules():
        if isinstance(module, MaskedConv2d):
            module.weight.data *= module.mask  # as every use of it does, in place
    before = {k: p.detach().clone() for k, p in net.named_parameters()}
    loss = RateDistortion(net, lmbda=0.01, metric="mse", precision=torch.bfloat16)
    objective, total, bpp, distortion = loss(torch.rand(2, 3, 64, 64))
    objective.backward()
    assert total.item() == pytest.approx((bpp + 0.01 * distortion).item(), rel=1e-5)
    for key, parameter in net.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert torch.equal(parameter, before[key])


def test_the_synthesis_gets_rounded_latents_and_the_rate_noisy_ones() -> None:
    torch.manual_seed(0)
    net = codec_spec("tiny").load_class().network(8, 12)
    RateDistortion(net, lmbda=0.01, metric="mse", precision=torch.float32)
    y, means = 5 * torch.randn(1, 12, 4, 4), torch.randn(1, 12, 4, 4)
    y.requires_grad_()
    scales = torch.full_like(y, 0.5)
    value, likelihood = net.gaussian_conditional(y, scales, means=means)
    steps = (value - means).detach()
    assert torch.allclose(steps, steps.round(), atol=1e-5)
    assert torch.allclose(value.detach() - means, torch.round(y.detach() - means), atol=1e-5)
    _, again = net.gaussian_conditional(y, scales, means=means)
    assert not torch.equal(likelihood, again)
    value.sum().backward()
    assert torch.equal(y.grad, torch.ones_like(y))


def test_the_faster_layers_of_the_cpu_give_the_same_gradients() -> None:
    torch.manual_seed(0)
    net = codec_spec("tiny").load_class().network(16, 24).to(memory_format=torch.channels_last)
    other = copy.deepcopy(net)
    speed_up(other, torch.bfloat16)
    images = torch.rand(2, 3, 64, 64)
    for one in (net, other):
        torch.manual_seed(1)
        RateDistortion(one, lmbda=0.01, metric="mse", precision=torch.bfloat16)(images)[0].backward()
    assert net.state_dict().keys() == other.state_dict().keys()
    for (key, a), b in zip(net.named_parameters(), other.parameters(), strict=True):
        assert (a.grad - b.grad).norm() <= 0.03 * a.grad.norm() + 1e-9, key


def test_the_learning_rate_warms_up_holds_and_decays() -> None:
    schedule, rung = Schedule(warmup=10, hold=0.5, final=0.1), Rung(quality=1, lmbda=1, steps=100)
    rates = [learning_rate(schedule, rung, step) / rung.learning_rate for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:51] == pytest.approx([1.0] * 42)
    assert rates[75] == pytest.approx(0.55)
    assert rates[100] == pytest.approx(0.1)
    assert rates[50:] == sorted(rates[50:], reverse=True)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_that_was_cut_and_resumed_logs_what_an_uncut_one_does(
    tmp_path: Path, photos: Path, precision: str
) -> None:
    changes = {"checkpoint_minutes": EVERY_STEP, "precision": precision, "validate_every": 4}
    rungs = [LADDER[0] | {"steps": 7}, LADDER[1] | {"steps": 5, "learning_rate": 1e-3}]
    data = {"train": [str(photos)], "validation": [str(photos)], "validation_images": 1}
    recipe = recipe_of(photos, rung=rungs, data=data, **changes)
    train(recipe, tmp_path / "uncut", device="cpu")
    for stop in (6, 7, 11):  # inside the first rung, at its end, at a validation in the second
        with pytest.raises(Cut):
            train(recipe, tmp_path / "cut", device="cpu", on_event=cut_at(stop))
    train(recipe, tmp_path / "cut", device="cpu")
    assert exact_part(tmp_path / "uncut") == exact_part(tmp_path / "cut")
    assert len(exact_part(tmp_path / "cut")) == 3 + 2 + 2 + 2
    for quality in (6, 4):
        a, b = (load_checkpoint(tmp_path / run / f"quality-{quality}.pt") for run in ("uncut", "cut"))
        for key in a.ema:
            assert torch.equal(a.ema[key], b.ema[key]), key
            assert torch.equal(a.sd[key], b.sd[key]), key


def test_a_finished_run_called_again_does_nothing(tmp_path: Path, photos: Path) -> None:
    recipe = recipe_of(photos)
    paths = train(recipe, tmp_path, device="cpu")
    log = (tmp_path / "log.jsonl").read_bytes()
    assert train(recipe, tmp_path, device="cpu") == paths
    assert (tmp_path / "log.jsonl").read_bytes() == log


def test_a_kill_in_the_middle_of_writing_leaves_the_old_checkpoint(tmp_path: Path, photos: Path) -> None:
    script = textwrap.dedent(
        """
        import os, sys, time
        from pathlib import Path
        import torch
        torch.set_num_threads(1)
        import lof.files
        from lof.training import train
        from lof.training.recipe import Recipe
        recipe = Recipe.model_validate_json(sys.argv[1])
        whole, writes = os.fdopen, []

        class Half:
            def __init__(self, file): self.file = file
            def __enter__(self): return self
            def __exit__(self, *_): self.file.close()
            def write(self, data):
                self.file.write(data[: len(data) // 2])
                self.file.flush()
                print("half written", flush=True)
                time.sleep(600)

        def fdopen(handle, mode):
            writes.append(handle)
            # the log, the first two checkpoints, and then one that is cut
            return whole(handle, mode) if len(writes) < 4 else Half(whole(handle, mode))

        lof.files.os.fdopen = fdopen
        train(recipe, Path(sys.argv[2]), device="cpu")
        """
    )
    recipe = recipe_of(photos, checkpoint_minutes=EVERY_STEP)
    folder = tmp_path / "run"
    child = subprocess.Popen(
        [sys.executable, "-c", script, recipe.model_dump_json(), str(folder)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "half written\n"
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    torn = list(folder.glob(".*.tmp"))
    assert len(torn) == 1
    assert 0 < torn[0].stat().st_size < (folder / "checkpoint.pt").stat().st_size
    assert load_checkpoint(folder / "checkpoint.pt").step == 2
    train(recipe, folder, device="cpu")
    train(recipe, tmp_path / "uncut", device="cpu")
    assert exact_part(folder) == exact_part(tmp_path / "uncut")
    assert not list(folder.glob(".*.tmp"))


def test_divergence_names_the_step_and_keeps_the_last_good_checkpoint(tmp_path: Path, photos: Path) -> None:
    calm = recipe_of(photos, checkpoint_minutes=EVERY_STEP, schedule={"warmup": 0})
    explosive = calm.model_copy(update={"rung": (calm.rung[0].model_copy(update={"learning_rate": 1e30}),)})
    with pytest.raises(TrainingError, match=r"no longer finite at step (\d+); .*checkpoint\.pt") as caught:
        train(explosive, tmp_path, device="cpu")
    step = int(str(caught.value).split("at step ")[1].split(";")[0])
    kept = load_checkpoint(tmp_path / "checkpoint.pt")
    assert kept.step < step
    assert all(math.isfinite(value) for value in kept.pending)


def test_a_loss_that_rises_far_above_its_best_stops_the_run(tmp_path: Path, photos: Path) -> None:
    recipe = recipe_of(photos, diverged=1.0000001, rung=[{"quality": 4, "lmbda": 0.013, "steps": 300}])
    with pytest.raises(TrainingError, match=r"diverged by step \d+ \(mean loss"):
        train(recipe, tmp_path, device="cpu")


def test_a_checkpoint_of_another_recipe_or_other_pictures_is_refused(tmp_path: Path, photos: Path) -> None:
    train(recipe_of(photos), tmp_path / "run", device="cpu")
    with pytest.raises(TrainingError, match="another recipe"):
        train(recipe_of(photos, seed=1), tmp_path / "run", device="cpu")
    fewer = tmp_path / "fewer"
    fewer.mkdir()
    Image.open(next(photos.glob("*.png"))).save(fewer / "one.png")
    with pytest.raises(TrainingError, match="other pictures"):
        train(recipe_of(fewer), tmp_path / "run", device="cpu")
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(TrainingError, match=r"checkpoint\.pt: cannot be read"):
        train(recipe_of(photos), tmp_path / "run", device="cpu")


def test_each_rung_starts_from_the_averaged_weights_of_the_one_before(tmp_path: Path, photos: Path) -> None:
    high, low = train(recipe_of(photos, rung=LADDER), tmp_path, device="cpu")
    first, second = load_checkpoint(high), load_checkpoint(low)
    moved = 0.0
    for key, average in first.ema.items():
        if "quantiles" not in key:
            assert torch.allclose(second.sd[key], average, atol=1e-7), key
            moved += float((first.sd[key] - average).abs().sum())
    assert moved > 0


def test_training_lowers_the_loss(tmp_path: Path, photos: Path) -> None:
    rung = [{"quality": 4, "lmbda": 0.013, "steps": 120, "learning_rate": 2e-3}]
    recipe = recipe_of(photos, rung=rung, log_every=20, schedule={"warmup": 10})
    train(recipe, tmp_path, device="cpu")
    losses = [record["loss"] for record in Journal(tmp_path / "log.jsonl").read()]
    assert losses[-1] < 0.5 * losses[0]


def test_ms_ssim_is_trained_for_where_the_recipe_says_so(tmp_path: Path, photos: Path) -> None:
    rung = [{"quality": 4, "lmbda": 16.64, "steps": 2}]
    train(recipe_of(photos, rung=rung, metric="ms-ssim", crop=192, batch=1), tmp_path, device="cpu")
    record = Journal(tmp_path / "log.jsonl").read()[-1]
    assert 0 < record["distortion"] < 1
    assert record["psnr"] is None
    assert record["loss"] == pytest.approx(record["bpp"] + 16.64 * record["distortion"], rel=1e-4)


def test_a_log_cut_at_any_byte_is_repaired_and_continued(tmp_path: Path) -> None:
    whole = Journal(tmp_path / "log.jsonl")
    for step in range(4):
        whole.append({"rung": 0, "step": step})
    data = whole.path.read_bytes()
    for length in range(len(data) + 1):
        whole.path.write_bytes(data[:length])
        whole.cut_after(0, 2)
        kept = [record["step"] for record in whole.read()]
        assert kept == list(range(min(3, data[:length].count(b"\n"))))
        whole.append({"rung": 0, "step": 9})
        assert whole.read()[-1] == {"rung": 0, "step": 9}


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
    assert 'RatePoint(0.013, (16, 24), fingerprint="' in low.registry_line
    card = (tmp_path / "w" / "tiny.md").read_text()
    assert f"| {low.summary.bpp:.4f} | {low.summary.psnr:.2f} |" in card
    assert low.fingerprint in card
    assert "MeanScaleHyperprior(N=16, M=24)" in card
    assert "Published figures are for Kodak" in card


def test_measured_rates_are_lengths_of_files(photos: Path) -> None:
    codec = load_codec("tiny", 4, device="cpu")
    pixels = read_picture(next(photos.glob("*.png"))).pixels
    (measured,) = measure(codec, [Picture(pixels, None, None, ())])
    data = api.encode(pixels, codec=codec)
    assert measured.size == len(data)
    error = pixels.astype(float) - api.decode(data).pixels
    assert measured.mse == pytest.approx(float((error**2).mean()))
    assert summarise([measured]).psnr == pytest.approx(measured.psnr)


def test_checkpoints_of_a_plain_script_are_exported_with_their_averages(tmp_path: Path) -> None:
    net = codec_spec("tiny").load_class().network(16, 24)
    sd = net.state_dict()
    ema = {k: v + 0.25 for k, v in sd.items() if v.is_floating_point() and "bound" not in k}
    arguments = {"lmbda": 0.013, "crop": 128, "batch": 8}
    torch.save({"sd": sd, "ema": ema, "args": arguments, "step": 77, "spent": 30.0}, tmp_path / "q.pt")
    (point,) = export_weights([tmp_path / "q.pt"], tmp_path / "w", history={"data": "mine"})
    state = read_trained(point.path).state
    assert torch.equal(state["g_a.0.weight"], (sd["g_a.0.weight"] + 0.25).half().float())
    assert point.history == {"steps": "77", "batch": "8 crops of 128×128", "time": "0.50 h", "data": "mine"}
    assert "| 4 | 0.013 | 77 |" in (tmp_path / "w" / "tiny.md").read_text()


def test_what_cannot_be_exported_is_one_clear_error(tmp_path: Path) -> None:
    torch.save({"step": 3}, tmp_path / "empty.pt")
    with pytest.raises(TrainingError, match=r"empty\.pt: holds no weights"):
        export_weights([tmp_path / "empty.pt"], tmp_path)
    with pytest.raises(TrainingError, match=r"gone\.pt: does not exist"):
        export_weights([tmp_path / "gone.pt"], tmp_path)
    sd = codec_spec("tiny").load_class().network(16, 24).state_dict()
    torch.save({"sd": sd, "args": {"lmbda": 0.02}}, tmp_path / "odd.pt")
    with pytest.raises(TrainingError, match="--quality"):
        export_weights([tmp_path / "odd.pt"], tmp_path)
    del sd["g_s.0.weight"]
    torch.save({"sd": sd, "args": {"lmbda": 0.013}}, tmp_path / "part.pt")
    with pytest.raises(TrainingError, match=r"part\.pt: not weights of this architecture \(g_s.0.weight"):
        export_weights([tmp_path / "part.pt"], tmp_path, codec="tiny")
    torch.save({"sd": sd | {"g_s.0.weight": torch.zeros(1)}, "args": {"lmbda": 0.013}}, tmp_path / "shape.pt")
    with pytest.raises(TrainingError, match="has another shape"):
        export_weights([tmp_path / "shape.pt"], tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))


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
    assert "| 4 | 0.5071 | 32.95 |" in card
    assert "| 0.461 | 32.95 |" in card
    assert "BD-rate against that curve: +" in card
    assert "(files larger at equal PSNR" in card


def test_the_commands_train_plot_and_export(tmp_path: Path, photos: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'codec = "tiny"\nsizes = [16, 24]\ncrop = 64\nbatch = 2\nlog_every = 2\n'
        "[[rung]]\nquality = 4\nlmbda = 0.013\nsteps = 4\n"
    )
    run = tmp_path / "run"
    options = ["--data", str(photos), "--validation", str(photos), "-o", str(run), "--device", "cpu"]
    result = CliRunner().invoke(app, ["train", str(path), *options])
    assert result.exit_code == 0, result.output
    assert "4 pictures" in result.stderr
    assert "quality 4 validation step 4: loss" in result.stderr
    assert Image.open(run / "plot.png").format == "PNG"
    weights = tmp_path / "w"
    export = ["export-weights", str(run / "quality-4.pt"), "-o", str(weights), "--note", "licence=CC0"]
    result = CliRunner().invoke(app, export)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith('("mse", 4): RatePoint(0.013, (16, 24), fingerprint="')
    assert "CC0" in (weights / "tiny.md").read_text()


def test_the_throughput_of_both_loops_is_measured(photos: Path) -> None:
    found = compare(recipe_of(photos, precision="bf16"), device="cpu", rounds=1, steps=1)
    assert found.plain > 0
    assert found.gain == pytest.approx(found.fast / found.plain)
    assert found.precision == "bfloat16"


def test_a_step_moves_the_average_towards_the_weights(photos: Path) -> None:
    recipe = recipe_of(photos, ema=0.5)
    net = codec_spec("tiny").load_class().network(16, 24)
    stepper = Stepper(net, recipe, recipe.rung[0], device=CPU, precision=torch.float32)
    before = stepper.ema["g_a.0.weight"].clone()
    stepper.advance(torch.rand(2, 3, 64, 64))
    decay = min(0.5, 1 / 10)
    expected = decay * before + (1 - decay) * net.g_a[0].weight
    assert torch.allclose(stepper.ema["g_a.0.weight"], expected, atol=1e-7)
    assert not torch.equal(before, expected)


def test_log_lines_are_json_with_the_figures_of_the_run(tmp_path: Path, photos: Path) -> None:
    train(recipe_of(photos), tmp_path, device="cpu")
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [3, 6, 8]
    for record in records:
        assert record["psnr"] == pytest.approx(10 * math.log10(255**2 / record["distortion"]))
