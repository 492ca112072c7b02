"""Sizes and qualities that are asked for: never missed, never worse than a plain encoding, the same again."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner, Result

import lof
import lof.cli.archive
import lof.cli.optimize
from lof import Target
from lof.cli import app
from lof.cli._targets import parse_size
from lof.codecs import codec_spec, load_codec
from lof.errors import LofError, TargetError, UsageError
from lof.profiles import parse_profile
from lof.search import Objective, trades
from lof.search.trades import _places as places_of
from lof.targets import shares
from lof.targets.between import parted

Pixels = NDArray[np.uint8]

SHORT = parse_profile({"name": "short", "stage": [{"kind": "mean-field", "evaluations": 6}]})
LONGER = parse_profile({"name": "longer", "stage": [{"kind": "mean-field", "evaluations": 12}]})


def met(target: Target, result: lof.Result) -> bool:
    """Whether the file does what was asked for; by its bytes and its decoded pixels alone."""
    height, width = result.pixels.shape[:2]
    limit = target.most_bytes(height, width)
    return len(result.data) <= limit if limit is not None else result.optimised.psnr >= (target.psnr or 0)


class TestShares:
    def test_what_gains_more_by_a_byte_gets_more(self) -> None:
        sizes = {"smooth": [(0.01, 100), (1.0, 200)], "rough": [(0.01, 1000), (1.0, 8000)]}
        found = shares(sizes, 4000)
        assert 3990 <= sum(found.values()) <= 4000
        # At λ = 0.1, halfway by its logarithm, they are the geometric means.
        halfway = shares(sizes, int(math.sqrt(100 * 200) + math.sqrt(1000 * 8000)))
        assert halfway == {"smooth": pytest.approx(141, abs=2), "rough": pytest.approx(2828, abs=2)}

    @given(
        curves=st.lists(st.lists(st.integers(20, 10**7), min_size=1, max_size=8), min_size=1, max_size=20),
        total=st.integers(1000, 10**9),
    )
    def test_any_total_is_kept_to(self, curves: list[list[int]], total: int) -> None:
        sizes = {
            number: [(2.0**i, size) for i, size in enumerate(curve)] for number, curve in enumerate(curves)
        }
        found = shares(sizes, total)
        assert found.keys() == sizes.keys()
        assert total - 2 * len(found) <= sum(found.values()) <= total + len(found)
        assert min(found.values()) >= 1

    def test_without_pictures_there_are_no_shares(self) -> None:
        assert shares({}, 1000) == {}


class TestTarget:
    @pytest.mark.parametrize(
        "wrong",
        [
            {},
            {"size": 1, "psnr": 30},
            {"size": 0},
            {"size": -5},
            {"size": 1.5},
            {"size": True},
            {"bpp": 0},
            {"bpp": math.nan},
            {"psnr": math.inf},
            {"psnr": "38"},
            {"ms_ssim": 1},
        ],
    )
    def test_what_nobody_can_want_is_refused(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(UsageError, match=r"^target"):
            Target(**wrong)

    def test_numbers_of_numpy_are_numbers(self) -> None:
        assert Target(size=np.int64(2000)) == Target(size=2000) == Target(size=2000.0)  # type: ignore[arg-type]
        assert str(Target(size=2000.0)) == "2000 bytes"  # type: ignore[arg-type]
        assert Target(psnr=float(np.float32(38))) == Target(psnr=np.float32(38))  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("text", "size"),
        [("200000", 200_000), ("1.001k", 1001), (".5 kB", 500), ("64KiB", 65536), ("20B", 20)],
    )
    def test_sizes_have_units(self, text: str, size: int) -> None:
        assert parse_size(text) == size

    @pytest.mark.parametrize("text", ["", "20iB", "1e3", "-5", "k", "9" * 400, "20KX"])
    def test_what_is_no_size_is_refused(self, text: str) -> None:
        with pytest.raises(UsageError, match="is no size"):
            parse_size(text)

    def test_a_rate_is_a_size_rounded_down(self) -> None:
        assert Target(bpp=0.5).most_bytes(10, 10) == 6
        assert Target(psnr=38).most_bytes(10, 10) is None
        assert [
            str(Target(**{k: v})) for k, v in (("size", 9), ("bpp", 0.5), ("psnr", 38), ("ms_ssim", 0.98))
        ] == [
            "9 bytes",
            "0.5 bpp",
            "38 dB",
            "MS-SSIM 0.98",
        ]


class TestReached:
    # Those that a plain encoding meets, and some that none does.
    @settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(
        side=st.tuples(st.integers(1, 70), st.integers(1, 70)),
        target=st.one_of(
            st.builds(Target, size=st.integers(100, 2000)),
            st.builds(Target, bpp=st.floats(0.2, 30)),
            st.builds(Target, psnr=st.floats(5, 28)),
        ),
        codec=st.sampled_from(["tiny", "lapped-tiny", "jpeg"]),
    )
    def test_any_target_is_met_or_refused_and_any_size_is_taken(
        self, photograph: Pixels, side: tuple[int, int], target: Target, codec: str
    ) -> None:
        image = np.ascontiguousarray(photograph[100 : 100 + side[0], 100 : 100 + side[1]])
        try:
            result = lof.optimize(image, codec=codec, profile=SHORT, target=target)
        except TargetError as error:
            assert "no file of" in str(error)  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017
            return
        assert met(target, result)
        assert np.array_equal(lof.decode(result.data).pixels, result.pixels)
        if met(target, plain_of(result)):  # never worse than the plain encoding, where one meets it
            better = "mse" if target.most_bytes(*side) is not None else "size"
            assert getattr(result.optimised, better) <= getattr(result.baseline, better)

    def test_a_size_is_met_to_the_per_cent_and_a_quality_to_the_hundredth(self, crop: Pixels) -> None:
        by_size = lof.optimize(crop, codec="jpeg", profile=SHORT, target=Target(size=4000))
        assert 0.985 * 4000 <= len(by_size.data) <= 4000
        assert by_size.optimised.psnr > by_size.baseline.psnr
        by_psnr = lof.optimize(crop, codec="jpeg", profile=SHORT, target=Target(psnr=32))
        assert 32 <= by_psnr.optimised.psnr <= 32.05
        assert by_psnr.optimised.size < by_psnr.baseline.size
        of_network = lof.optimize(
            crop, codec="mean-scale-96", quality=4, profile=LONGER, target=Target(size=1850)
        )
        assert 0.985 * 1850 <= len(of_network.data) <= 1850
        assert of_network.optimised.mse < of_network.baseline.mse

    def test_what_a_jpeg_does_not_hold_is_not_changed(self) -> None:
        # Its colour planes are halved: most of their blocks are no part of the file.
        random = np.random.default_rng(0)
        small = Image.fromarray(random.integers(0, 256, (4, 5, 3), dtype=np.uint8))
        smooth = np.array(small.resize((96, 96), Image.Resampling.BICUBIC))
        for size in (1000, 1500):
            result = lof.optimize(smooth, codec="jpeg", profile=SHORT, target=Target(size=size))
            assert np.array_equal(lof.decode(result.data).pixels, result.pixels)  # reads the same symbols

    def test_what_is_told_to_be_reached_can_be_asked_for(self) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
        with pytest.raises(TargetError, match="the best found has") as told:
            lof.optimize(noise, codec="jpeg", profile="fast", target=Target(psnr=90))
        best = float(re.findall(r"has ([\d.]+) dB", str(told.value))[0])
        found = lof.optimize(noise, codec="jpeg", profile="fast", target=Target(psnr=best))
        assert found.optimised.psnr >= best

    def test_of_a_flat_picture_the_smallest_file_is_taken(self) -> None:
        flat = np.full((16, 16, 3), (200, 30, 90), np.uint8)
        finest = lof.encode(flat, codec="jpeg", quality=100)
        found = lof.optimize(flat, codec="jpeg", profile="fast", target=Target(psnr=40))
        assert len(finest) < len(lof.encode(flat, codec="jpeg", quality=90))
        assert found.optimised.size <= len(finest)

    def test_qualities_of_a_codec_with_few_are_all_tried(self, crop: Pixels) -> None:
        points = [q for _, q in codec_spec("mean-scale-96").rate_points]
        assert len(points) == 4
        image = crop[:64, :64]
        sizes = [len(lof.encode(image, codec="mean-scale-96", quality=quality)) for quality in (2, 5)]
        chosen = [
            lof.optimize(image, codec="mean-scale-96", profile=SHORT, target=Target(size=size)).quality
            for size in sizes
        ]
        assert chosen[0] < chosen[1]

    def test_ms_ssim_of_the_decoded_pixels_is_met(self, photograph: Pixels) -> None:
        image = np.ascontiguousarray(photograph[32:200, 128:296])
        result = lof.optimize(image, codec="jpeg", profile=SHORT, target=Target(ms_ssim=0.97))
        assert result.optimised.ms_ssim is not None
        assert 0.97 <= result.optimised.ms_ssim < 0.972
        with pytest.raises(TargetError, match="too small for MS-SSIM"):
            lof.optimize(image[:100], codec="jpeg", profile=SHORT, target=Target(ms_ssim=0.97))

    def test_a_region_gets_more_of_the_bytes(self, crop: Pixels) -> None:
        weights = np.ones(crop.shape[:2])
        weights[:64] = 8
        target = Target(size=4000)
        even, odd = (
            lof.optimize(crop, codec="jpeg", profile=SHORT, target=target, region=region)
            for region in (None, weights)
        )
        assert max(len(even.data), len(odd.data)) <= 4000
        errors = [np.square(r.pixels[:64].astype(float) - crop[:64]).mean() for r in (even, odd)]
        assert errors[1] < 0.9 * errors[0]

    def test_the_same_call_gives_the_same_bytes(self, crop: Pixels) -> None:
        first, second = (
            lof.optimize(crop[:64], codec="tiny", profile=SHORT, target=Target(psnr=22)) for _ in range(2)
        )
        assert first.data == second.data
        assert first.record()["target"] == "22 dB"

    def test_what_decides_on_lambda_or_the_start_excludes_it(self, crop: Pixels) -> None:
        for options in ({"lmbda": 0.1}, {"warm_start": b""}, {"never_bigger": True}):
            with pytest.raises(UsageError, match="a target decides on λ itself"):
                lof.optimize(crop, codec="tiny", profile=SHORT, target=Target(psnr=22), **options)  # type: ignore[arg-type]


def plain_of(result: lof.Result) -> Any:
    """The baseline of a result, as :func:`met` takes it."""

    class Baseline:
        data = b"x" * result.baseline.size
        pixels = result.baseline_pixels
        optimised = result.baseline

    return Baseline


def test_trades_bring_what_they_foresee(crop: Pixels) -> None:
    codec = load_codec("mean-scale-96", 4, device="cpu")
    image = torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        coded = codec.code(codec.analyse(codec.pad(image)), codec.rounded, exact=True)
    symbols = {name: part.residual.int() for name, part in coded.items()}
    before = float(codec.rate(symbols)[0])
    for cheaper in (True, False):
        path = trades(Objective(codec, image, codec.lmbda), symbols, cheaper=cheaper, apart=False)
        assert all(torch.equal(path.symbols(0)[name], symbols[name]) for name in symbols)
        bits = float(codec.rate(path.symbols(60))[0]) - before
        changed = sum(int((path.symbols(60)[name] != symbols[name]).sum()) for name in symbols)
        assert changed == 60
        assert bits == pytest.approx(float(path.bits[59]), abs=0.5 * abs(float(path.bits[59])) + 64)


def test_elements_of_large_pictures_keep_their_numbers(crop: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = load_codec("lapped-tiny")
    latents = codec.analyse(codec.pad(torch.from_numpy(crop.copy()).permute(2, 0, 1)[None].float() / 255))
    whole = places_of(codec, latents)
    asked = torch.cat([numbers.flatten() for numbers in whole.values()])
    assert len(asked) > 2**8
    monkeypatch.setitem(places_of.__globals__, "_DIGIT_BITS", 4)
    for name, numbers in places_of(codec, latents).items():
        assert torch.equal(numbers, whole[name])


@pytest.mark.parametrize("name", ["lapped-tiny", "mean-scale-96"])  # their weights do not change any more
def test_trades_that_bring_most_come_first(crop: Pixels, name: str) -> None:
    codec = load_codec(name, 4, device="cpu")
    image = torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 255
    symbols = codec.symbols(codec.analyse(codec.pad(image)))
    objective = Objective(codec, image, codec.lmbda)
    for cheaper in (True, False):
        path = trades(objective, symbols, cheaper=cheaper)
        brought = path.bits if cheaper else path.distortion
        assert float(brought[len(path) // 6]) < float(brought[-1]) / 4


def test_a_share_of_one_search_and_the_rest_of_another() -> None:
    one, other = ({"z": torch.full((1, 2, 2, 3), n), "y": torch.full((1, 4, 8, 12), n)} for n in (0.0, 1.0))
    assert all(torch.equal(tensor, one[name]) for name, tensor in parted(one, other, 0.0).items())
    assert all(torch.equal(tensor, other[name]) for name, tensor in parted(one, other, 1.0).items())
    half = parted(one, other, 0.5)
    assert [float(tensor.mean()) for tensor in half.values()] == [0.5, 0.5]
    assert float(half["y"][..., :4, :].min()) == 1


def test_trades_are_judged_on_the_picture_that_the_decoder_shows(photograph: Pixels) -> None:
    # The decoder predicts in whole numbers, a search does not: its own picture of these symbols is another one.
    codec = load_codec("lapped", 8, device="cpu")
    image = torch.from_numpy(photograph[60:188, 160:288].copy()).permute(2, 0, 1)[None].float() / 255
    symbols = codec.symbols(codec.analyse(codec.pad(image)))
    objective = Objective(codec, image, codec.lmbda)
    path = trades(objective, symbols, cheaper=True, apart=False)
    before, after = (
        float(
            objective.distortion(codec.decompress(codec.compress(path.symbols(count)), 128, 128).image[None])
        )
        for count in (0, 60)
    )
    assert after / before - 1 == pytest.approx(float(path.distortion[59]), abs=0.02)


class TestCommand:
    @pytest.fixture(autouse=True)
    def _in_a_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photograph: Pixels) -> None:
        monkeypatch.chdir(tmp_path)
        Path("short.toml").write_text('[[stage]]\nkind = "mean-field"\nevaluations = 6\n')
        Path("in").mkdir()
        Image.fromarray(photograph[64:144, 160:240]).save("in/a.png")

    def optimize(self, *arguments: str) -> Result:
        return CliRunner().invoke(
            app, ["optimize", "in", "--codec", "jpeg", "--profile", "short.toml", *arguments]
        )

    def test_files_that_cannot_be_had_are_one_line_and_the_others_go_on(self) -> None:
        exif = Image.Exif()
        exif[0x010E] = "a long description " * 200
        Image.open("in/a.png").save("in/described.png", exif=exif)
        result = self.optimize("--target-bytes", "1.4 kB", "--json")
        records = {record["source"]: record for record in map(json.loads, result.stdout.splitlines())}
        assert result.exit_code == 1
        assert records["a.png"]["target"] == "1400 bytes"
        assert Path("lof-out/a.png.jpg").stat().st_size <= 1400
        assert re.match(
            r"in/described.png: no file of jpeg has 1400 bytes or less; the smallest has \d+ bytes, \d+ of them "
            "metadata that --strip leaves out",
            records["described.png"]["error"],
        )
        assert not Path("lof-out/described.png.jpg").exists()
        assert "1400 bytes" in Path("lof-out/report.html").read_text()
        again = self.optimize("--target-bytes", "1400")
        assert "1 done before and unchanged" in again.stdout
        other = self.optimize("--target-bytes", "1500")
        assert isinstance(other.exception, UsageError)
        assert "--redo" in str(other.exception)

    def test_a_dry_run_writes_nothing(self) -> None:
        assert self.optimize("--target-psnr", "30", "--dry-run").exit_code == 0
        assert not Path("lof-out").exists()

    @pytest.mark.parametrize(
        "wrong",
        [
            ["--target-bytes", "many"],
            ["--target-bytes", "0"],
            ["--target-bytes", "-3k"],
            ["--target-bytes", "0.0001k"],
            ["--target-bpp", "nan"],
            ["--target-psnr", "-1"],
            ["--target-psnr", "inf"],
            ["--target-ms-ssim", "1.5"],
            ["--target-bytes", "9k", "--target-psnr", "30"],
            ["--target-psnr", "30", "--lambda", "0.1"],
        ],
    )
    def test_wrong_use_ends_with_2(self, wrong: list[str]) -> None:
        result = self.optimize(*wrong)
        code = result.exception.exit_code if isinstance(result.exception, LofError) else result.exit_code
        assert code == 2
        assert not Path("lof-out/a.png.jpg").exists()

    def test_an_archive_keeps_to_the_target_and_is_not_improved_beyond_it(self) -> None:
        made = CliRunner().invoke(
            app,
            [
                "archive",
                "create",
                "in",
                "arc",
                "--codec",
                "tiny",
                "--profile",
                "short.toml",
                "--target-psnr",
                "22",
            ],
        )
        assert made.exit_code == 0, made.output
        assert "made for a target of 22 dB" in made.output
        stream = next(Path("arc/streams").rglob("*.lof"))
        before = stream.read_bytes()
        better = CliRunner().invoke(app, ["archive", "improve", "arc", "--profile", "fast"])
        assert better.exit_code == 0, better.output
        assert stream.read_bytes() == before

    def test_a_total_is_shared_out_and_not_exceeded(self) -> None:
        Image.fromarray(np.full((64, 96, 3), 90, np.uint8)).save("in/flat.png")
        Path("in/damaged.png").write_bytes(Path("in/a.png").read_bytes()[:99])
        result = self.optimize("--target-bytes", "4k", "--total", "--json")
        assert result.exit_code == 1
        rows = {row["source"]: row for row in map(json.loads, result.stdout.splitlines())}
        assert rows["damaged.png"]["state"] == "failed"
        sizes = {name: row["optimised"]["size"] for name, row in rows.items() if row["state"] == "done"}
        assert sizes.keys() == {"a.png", "flat.png"}
        assert 3700 < sum(sizes.values()) <= 4000
        assert sizes["flat.png"] < 1000 < sizes["a.png"], "a flat picture needs little"
        again = self.optimize("--target-bytes", "4k", "--total", "--json")
        states = [json.loads(line)["state"] for line in again.stdout.splitlines()]
        assert sorted(states) == ["failed", "skipped", "skipped"]
        page = Path("lof-out/report.html").read_text()
        assert f"{sum(sizes.values())} bytes of 4000 for all together" in page

    def test_pictures_that_come_later_share_what_is_left(self, tmp_path: Path) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (2, 24, 24, 3), np.uint8)
        folder, out = tmp_path / "some", tmp_path / "made"
        folder.mkdir()
        command = ["optimize", str(folder), "-o", str(out), "--codec", "jpeg", "--profile", "fast"]
        command += ["--target-bytes", "1500", "--total"]

        def sizes() -> list[int]:
            return [path.stat().st_size for path in sorted(out.glob("*.jpg"))]

        Image.fromarray(noise[0]).save(folder / "a.png")
        assert CliRunner().invoke(app, command).exit_code == 0
        Image.fromarray(noise[1]).save(folder / "b.png")
        first = sizes()
        refused = CliRunner().invoke(app, command)
        assert sizes()[:1] == first
        assert sum(sizes()) <= 1500, refused.output
        assert CliRunner().invoke(app, [*command, "--redo"]).exit_code == 0
        assert len(sizes()) == 2
        assert sum(sizes()) <= 1500
        assert sizes()[0] < first[0]

    def test_a_psnr_inside_a_region_is_met_there(self) -> None:
        arguments = ["--region", "20,20,40,40=4", "--target-psnr-inside", "34", "--json"]
        result = self.optimize(*arguments)
        assert result.exit_code == 0, result.output
        (row,) = map(json.loads, result.stdout.splitlines())
        original = np.asarray(Image.open("in/a.png")).astype(float)
        errors = np.square(original - np.asarray(Image.open("lof-out/a.png.jpg").convert("RGB"))).mean(2)
        inside = 10 * math.log10(255**2 / errors[20:60, 20:60].mean())
        assert 34 <= inside < 34.05
        assert row["optimised"]["psnr_inside"] == pytest.approx(inside)
        assert row["optimised"]["psnr_outside"] < 33
        assert (row["target"], row["optimised"]["size"]) == (
            "34 dB inside",
            Path("lof-out/a.png.jpg").stat().st_size,
        )

    def test_inside_of_no_region_is_wrong_usage(self) -> None:
        result = self.optimize("--target-psnr-inside", "34")
        assert isinstance(result.exception, UsageError)
        assert "add --region" in str(result.exception)

    @pytest.mark.parametrize("wrong", [[], ["--target-psnr", "30"], ["--target-bpp", "1"]])
    def test_a_total_needs_a_size(self, wrong: list[str]) -> None:
        result = self.optimize("--total", *wrong)
        assert isinstance(result.exception, UsageError)
        assert "add --target-bytes" in str(result.exception)

    def test_a_job_that_is_killed_and_resumed_gives_the_same(self) -> None:
        Image.open("in/a.png").transpose(Image.Transpose.ROTATE_90).save("in/b.png")
        assert self.optimize("--target-bytes", "1.5k", "-o", "whole").exit_code == 0
        arguments = [
            "in",
            "--codec",
            "jpeg",
            "--profile",
            "short.toml",
            "--target-bytes",
            "1.5k",
            "-o",
            "cut",
        ]
        process = subprocess.Popen([sys.executable, "-m", "lof", "optimize", *arguments], env={**os.environ})
        while process.poll() is None and not Path("cut/a.png.jpg").exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert self.optimize("--target-bytes", "1.5k", "-o", "cut").exit_code == 0
        for name in ("a.png.jpg", "b.png.jpg"):
            assert Path("cut", name).read_bytes() == Path("whole", name).read_bytes()
