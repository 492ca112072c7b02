"""Relaxations, schedules, the engine and its stages."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from numpy.typing import NDArray

from lof.codecs import Codec, load_codec
from lof.errors import ProfileError, SearchError
from lof.profiles import STAGE_KINDS, Profile, Ramp, Schedule, load_profile, parse_profile
from lof.search import RELAXATIONS, Objective, Progress, Sensitivity, search
from lof.search.relaxations import NoiseSource, soft_round
from lof.search.schedules import value_at
from lof.search.sensitivity import distortion_curvature, natural_steps
from lof.search.stages import STAGES
from lof.search.state import Search
from pipelines.variants import variant

BATCH = 2
DETERMINISTIC = {"ste", "soft-round"}


def noise(seed: int = 0) -> NoiseSource:
    return NoiseSource([seed, seed + 1], torch.device("cpu"))


def profile_of(*stages: dict[str, Any], **more: Any) -> Profile:
    return parse_profile({"name": "test", "stage": list(stages), **more})


MEAN_FIELD = {"kind": "mean-field", "evaluations": 12}


@pytest.fixture(scope="module")
def codec() -> Codec:
    return load_codec("tiny", device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def images(photograph: NDArray[np.uint8]) -> torch.Tensor:
    parts = [photograph[64:128, 160:224], photograph[300:364, 200:264]]
    return torch.stack([torch.from_numpy(p.copy()).permute(2, 0, 1).float() / 255 for p in parts])


@pytest.mark.parametrize("name", RELAXATIONS)
class TestRelaxations:
    def relax(self, name: str, values: torch.Tensor, temperature: float, seed: int = 0) -> torch.Tensor:
        return RELAXATIONS[name](values, temperature, noise(seed))

    def values(self) -> torch.Tensor:
        line = torch.cat([torch.linspace(-2.5, 2.5, 101), torch.tensor([0.0, 1.0, -1.0, 0.5])])
        return line.repeat(BATCH, 1).reshape(BATCH, 1, -1, 1)

    @pytest.mark.parametrize("temperature", [0.01, 0.3, 1.0, 1000.0])
    def test_output_stays_near_and_keeps_its_shape(self, name: str, temperature: float) -> None:
        values = self.values()
        out = self.relax(name, values, temperature)
        assert out.shape == values.shape
        assert out.dtype == values.dtype
        assert float((out - values).abs().max()) <= 1.5

    @pytest.mark.parametrize("temperature", [0.01, 0.3, 1.0])
    def test_gradients_are_finite_everywhere(self, name: str, temperature: float) -> None:
        values = self.values().requires_grad_()
        self.relax(name, values, temperature).sum().backward()
        assert values.grad is not None
        assert bool(torch.isfinite(values.grad).all())
        assert float(values.grad.abs().sum()) > 0

    def test_whole_shifts_commute(self, name: str) -> None:
        values = torch.linspace(-0.4, 0.4, 41).repeat(BATCH, 1).reshape(BATCH, 1, -1, 1)
        shifted = self.relax(name, values + 3, 0.4) - 3
        assert torch.allclose(shifted, self.relax(name, values, 0.4), atol=1e-4)

    def test_low_temperature_is_rounding(self, name: str) -> None:
        offsets = torch.linspace(-0.3, 0.3, 61)
        values = (offsets + torch.arange(-3.0, 3.0).unsqueeze(1)).repeat(BATCH, 1, 1).unsqueeze(1)
        out = self.relax(name, values, 0.01)
        near = float((out - values.round()).abs().max()) < 0.05
        assert near == (name != "noise")  # the training proxy never becomes rounding

    def test_equal_seeds_give_equal_noise(self, name: str) -> None:
        values = self.values()
        assert torch.equal(self.relax(name, values, 0.4), self.relax(name, values, 0.4))
        differs = not torch.equal(self.relax(name, values, 0.4, seed=7), self.relax(name, values, 0.4))
        assert differs == (name not in DETERMINISTIC)


def test_soft_rounding_at_high_temperature_is_the_identity() -> None:
    values = torch.linspace(-2, 2, 33)
    assert torch.allclose(soft_round(values, 50.0), values, atol=1e-3)


class TestSchedules:
    def test_sga_temperature_is_its_authors(self) -> None:
        schedule = Schedule(start=0.5, end=float(np.exp(-1.3)), shape="exponential", hold=0.6966)
        for step in (0, 700, 1390, 1500, 2000):
            assert value_at(schedule, step / 2000) == pytest.approx(
                min(0.5, np.exp(-0.001 * (step - 700))), rel=2e-3
            )

    @pytest.mark.parametrize("shape", ["linear", "cosine", "exponential"])
    def test_schedules_meet_their_ends(self, shape: Any) -> None:
        schedule = Schedule(start=1.0, end=0.1, shape=shape, hold=0.25)
        assert value_at(schedule, 0.2) == pytest.approx(1.0)
        assert value_at(schedule, 1.0) == pytest.approx(0.1)
        assert 0.1 < value_at(schedule, 0.6) < 1.0

    def test_a_ramp_stays_at_its_end_once_reached(self) -> None:
        ramp = Ramp(start=0.0, end=2.0, reached=0.5)
        assert [value_at(ramp, p) for p in (0, 0.25, 0.5, 1)] == [0.0, 1.0, 2.0, 2.0]


class TestForeignCodecs:
    """Codecs whose z is on grids that no profile was chosen for."""

    @pytest.fixture(scope="class")
    def flat(self) -> torch.Tensor:
        """Four parts of a launch at night, which are nearly flat: (4, 3, 64, 64)."""
        rocket = torch.from_numpy(np.ascontiguousarray(skimage.data.rocket())).permute(2, 0, 1).float() / 255
        corners = [(63, 468), (203, 538), (235, 525), (308, 366)]
        return torch.stack([rocket[:, y : y + 64, x : x + 64] for y, x in corners])

    @pytest.mark.parametrize("name", ["tiny:4", "tiny:4:z*8", "tiny:4:z/8", "tiny:4:z/64"])
    @pytest.mark.parametrize("profile", ["fast", "medium"])
    def test_every_search_gains(self, flat: torch.Tensor, profile: str, name: str) -> None:
        foreign = variant(name, device="cpu", precision="fp32")
        for found in search(foreign, flat, load_profile(profile), lmbda=foreign.lmbda):
            assert found.trace[-1].cost < 0.98 * found.trace[0].cost

    @pytest.mark.parametrize(("name", "factor"), [("tiny:4:z*8", 8.0), ("tiny:4:z/8", 0.125)])
    def test_natural_steps_follow_the_grid(
        self, codec: Codec, images: torch.Tensor, name: str, factor: float
    ) -> None:
        def steps(codec: Codec) -> torch.Tensor:
            objective = Objective(codec, images, 0.01)
            state = Search(objective, codec.analyse(codec.pad(images)), 10, [0] * len(images), None)
            curvature = distortion_curvature(state, state.best)
            return natural_steps(state, state.best, curvature, 1.0)["z"].log().mean().exp()

        foreign = variant(name, device="cpu", precision="fp32")
        assert float(steps(foreign) / steps(codec)) == pytest.approx(factor, rel=0.6)


class TestEngine:
    def test_every_stage_kind_of_the_schema_has_an_implementation(self) -> None:
        assert set(STAGES) == set(STAGE_KINDS)

    @pytest.mark.parametrize(
        "stage",
        [
            MEAN_FIELD,
            {"kind": "relax", "evaluations": 12, "learning_rate": 0.1},
            {"kind": "relax", "evaluations": 12, "relaxation": "ssl", "learning_rate": 0.05},
            {"kind": "greedy-gradient", "evaluations": 8},
            {"kind": "greedy-flip", "evaluations": 12},
        ],
        ids=["mean-field", "relax", "ssl", "greedy-gradient", "greedy-flip"],
    )
    def test_each_kind_of_stage_lowers_the_true_cost(
        self, codec: Codec, images: torch.Tensor, stage: dict[str, Any]
    ) -> None:
        for found in search(codec, images, profile_of(stage), lmbda=codec.lmbda):
            costs = [point.cost for point in found.trace]
            assert costs == sorted(costs, reverse=True)
            assert len(costs) > 1

    @pytest.mark.parametrize("kind", STAGES)
    def test_a_stage_at_its_defaults_loses_nothing_keeps_to_its_budget_and_repeats_itself(
        self, codec: Codec, images: torch.Tensor, kind: str
    ) -> None:
        plan = profile_of({"kind": kind, "evaluations": 4})
        seen: list[Progress] = []
        (first,) = search(codec, images[:1], plan, lmbda=codec.lmbda, on_progress=seen.append)
        (again,) = search(codec, images[:1], plan, lmbda=codec.lmbda)
        assert first.trace[-1].cost <= first.trace[0].cost
        assert first.evaluations <= plan.evaluations
        assert seen, "it never calls state.report()"
        assert all(torch.equal(first.latents[name], again.latents[name]) for name in first.latents)

    def test_flips_of_a_batch_reach_a_side_latent_of_several_places(
        self, codec: Codec, images: torch.Tensor
    ) -> None:
        # Such a z is priced in another memory layout than y, which a flat view would not fit.
        large = torch.nn.functional.interpolate(images, size=(128, 128))
        plan = profile_of({"kind": "greedy-flip", "evaluations": 6, "patience": 6})
        found = search(codec, large, plan, lmbda=codec.lmbda)
        assert [f.evaluations for f in found] == [6, 6]
        assert all(f.latents["z"].shape[-2:] == (2, 2) for f in found)

    def test_the_symbols_are_those_of_the_best_cost_not_of_the_last(
        self, codec: Codec, images: torch.Tensor
    ) -> None:
        ruin = {"kind": "relax", "evaluations": 4, "learning_rate": 10, "check_every": 1}
        calm = search(codec, images, profile_of(MEAN_FIELD), lmbda=codec.lmbda)
        ruined = search(codec, images, profile_of(MEAN_FIELD, ruin), lmbda=codec.lmbda)
        for before, after in zip(calm, ruined, strict=True):
            assert all(torch.equal(before.latents[n], after.latents[n]) for n in before.latents)
            assert after.evaluations == before.evaluations + 4

    @pytest.mark.parametrize(("name", "quality"), [("tiny", 4), ("lapped", 7)])
    def test_traced_cost_is_the_cost_of_the_file(
        self, name: str, quality: int, photograph: NDArray[np.uint8]
    ) -> None:
        codec = load_codec(name, quality, device="cpu", precision="fp32")
        image = torch.from_numpy(photograph[:128, 160:288].copy()).permute(2, 0, 1).float() / 255
        plan = profile_of({"kind": "mean-field", "evaluations": 4})
        found = search(codec, image[None], plan, lmbda=codec.lmbda)[0]
        strings = codec.compress(codec.symbols(found.latents))
        decoded = codec.decompress(strings, 128, 128).image
        last = found.trace[-1]
        # Searches of networks in whole numbers predict without rounding.
        assert 255**2 * float((decoded - image).square().mean()) == pytest.approx(last.distortion, rel=5e-3)
        # Strings have whole words of 32 bits, and end with some.
        assert 8 * sum(map(len, strings)) / 128**2 == pytest.approx(last.bpp, rel=5e-3, abs=130 / 128**2)

    def test_equal_seeds_give_equal_symbols(self, codec: Codec, images: torch.Tensor) -> None:
        plan = profile_of({"kind": "relax", "evaluations": 6, "relaxation": "sga", "learning_rate": 0.05})
        runs = [search(codec, images[:1], plan, lmbda=codec.lmbda, seed=s)[0].latents["y"] for s in (3, 3, 4)]
        assert torch.equal(runs[0], runs[1])
        assert not torch.equal(runs[0], runs[2])

    def test_images_of_a_batch_are_searched_independently(self, codec: Codec, images: torch.Tensor) -> None:
        both = search(codec, images, profile_of(MEAN_FIELD), lmbda=codec.lmbda)
        alone = search(codec, images[1:], profile_of(MEAN_FIELD), lmbda=codec.lmbda)
        assert both[1].trace[-1].cost == pytest.approx(alone[0].trace[-1].cost, rel=1e-2)

    def test_the_budget_is_what_is_spent_and_reported(self, codec: Codec, images: torch.Tensor) -> None:
        plan = profile_of(MEAN_FIELD, {"kind": "greedy-flip", "evaluations": 3, "patience": 9})
        seen: list[Progress] = []
        found = search(codec, images[:1], plan, lmbda=codec.lmbda, on_progress=seen.append)
        assert found[0].evaluations == plan.evaluations == seen[-1].evaluations == seen[-1].budget
        assert seen[-1].gain[0] < 0

    def test_a_stage_that_gains_too_little_ends_the_search(self, codec: Codec, images: torch.Tensor) -> None:
        plan = profile_of(MEAN_FIELD, MEAN_FIELD, stop_below=0.9)
        found = search(codec, images[:1], plan, lmbda=codec.lmbda)[0]
        assert found.evaluations == 13

    def test_patience_ends_a_greedy_stage_that_is_stuck(self, codec: Codec, images: torch.Tensor) -> None:
        plan = profile_of({"kind": "greedy-gradient", "evaluations": 500, "learning_rate": 5, "patience": 2})
        assert search(codec, images[:1], plan, lmbda=codec.lmbda)[0].evaluations < 100

    def test_a_warm_start_is_not_worse_than_its_latents(self, codec: Codec, images: torch.Tensor) -> None:
        first = search(codec, images[:1], profile_of(MEAN_FIELD), lmbda=codec.lmbda)[0]
        symbols = codec.symbols(first.latents)
        z = symbols["z"].float() + codec.net.entropy_bottleneck._get_medians().reshape(1, -1, 1, 1)  # type: ignore[attr-defined]
        means = codec.net.h_s(z).chunk(2, 1)[1]  # type: ignore[attr-defined]
        latents = {"z": z, "y": symbols["y"] + means}
        again = search(codec, images[:1], profile_of(MEAN_FIELD), lmbda=codec.lmbda, initial=latents)[0]
        assert again.trace[0].cost == pytest.approx(first.trace[-1].cost, rel=1e-3)


class TestAnotherSearch:
    """One that goes on where the last one stopped."""

    def test_what_was_measured_is_measured_no_more(self, codec: Codec, images: torch.Tensor) -> None:
        known, profile = Sensitivity(), profile_of({"kind": "mean-field", "evaluations": 2})
        first = search(codec, images, profile, lmbda=0.01, sensitivity=known)
        curvature, natural = dict(known.curvature), dict(known.natural)
        again = search(codec, images, profile, lmbda=0.04, sensitivity=known)
        assert (first[0].evaluations, again[0].evaluations) == (3, 2)
        assert torch.allclose(known.curvature["y"], 4 * curvature["y"])
        assert torch.allclose(known.natural["y"], natural["y"] / 2)
        assert torch.equal(known.natural["z"], natural["z"])

    def test_a_later_stage_measures_anew(self, codec: Codec, images: torch.Tensor) -> None:
        stage = {"kind": "mean-field", "evaluations": 2}
        assert search(codec, images, profile_of(stage, stage), lmbda=0.01)[0].evaluations == 6

    @pytest.mark.parametrize("kind", ["relax", "mean-field", "greedy-gradient", "greedy-flip"])
    def test_no_stage_is_gone_on_from_at_its_start(
        self, codec: Codec, images: torch.Tensor, kind: str
    ) -> None:
        stage = {"kind": kind, "evaluations": 6} | ({"relaxation": "ssl"} if kind == "relax" else {})
        found, start = search(codec, images, profile_of(stage), lmbda=0.01), codec.analyse(images)
        for number, one in enumerate(found):
            assert not torch.equal(one.last["y"], start["y"][number : number + 1])
            if kind.startswith("greedy"):
                assert torch.equal(one.last["y"], one.latents["y"])

    def test_it_may_go_on_from_what_was_not_better_yet(self, codec: Codec, images: torch.Tensor) -> None:
        profile = profile_of({"kind": "mean-field", "evaluations": 1, "learning_rate": 5.0, "longest": 100.0})
        found = search(codec, images, profile, lmbda=0.01)
        start = codec.analyse(images)
        for number, one in enumerate(found):
            assert torch.equal(one.latents["y"], start["y"][number : number + 1])
            assert not torch.allclose(one.last["y"], one.latents["y"], atol=0.1)


def test_no_symbol_leaves_the_limit_of_the_codec(codec: Codec, images: torch.Tensor) -> None:
    stages = profile_of(MEAN_FIELD, {"kind": "greedy-flip", "evaluations": 4})
    (whole,) = search(codec, images[:1], stages, lmbda=4 * codec.lmbda)
    largest = max(int(symbols.abs().max()) for symbols in codec.symbols(whole.latents).values())
    limited = copy.copy(codec)
    limited.symbol_limit = largest - 1  # type: ignore[misc]
    (found,) = search(limited, images[:1], stages, lmbda=4 * codec.lmbda)
    assert max(int(symbols.abs().max()) for symbols in limited.symbols(found.latents).values()) <= largest - 1
    assert found.trace[-1].cost < found.trace[0].cost


class TestObjective:
    def test_a_region_moves_quality_to_where_it_points(self, codec: Codec, images: torch.Tensor) -> None:
        left = torch.full((1, 1, 64, 64), 0.05)
        left[..., :32] = 1.95

        def error(region: torch.Tensor | None) -> torch.Tensor:
            found = search(codec, images[:1], profile_of(MEAN_FIELD), lmbda=codec.lmbda, region=region)[0]
            decoded = codec.decompress(codec.compress(codec.symbols(found.latents)), 64, 64).image
            return (decoded - images[0]).square().mean((0, 1))

        plain, weighted = error(None), error(left)
        assert float(weighted[:24].mean()) < float(plain[:24].mean())
        assert float(weighted[40:].mean()) > float(plain[40:].mean())

    def test_ms_ssim_codecs_refuse_tiny_images(self, zoo_weights: Any, images: torch.Tensor) -> None:
        codec = load_codec("mbt2018-mean", 1, metric="ms-ssim", weights=zoo_weights, device="cpu")
        with pytest.raises(SearchError, match="64×64 image is too small for MS-SSIM"):
            Objective(codec, images, 1.0)

    def test_an_ms_ssim_codec_is_searched_for_ms_ssim(
        self, zoo_weights: Any, photograph: NDArray[np.uint8]
    ) -> None:
        codec = load_codec(
            "mbt2018-mean", 1, metric="ms-ssim", weights=zoo_weights, device="cpu", precision="fp32"
        )
        image = torch.from_numpy(photograph[:192, :192].copy()).permute(2, 0, 1)[None].float() / 255
        for kind in ("relax", "mean-field", "greedy-flip"):
            found = search(codec, image, profile_of({"kind": kind, "evaluations": 6}), lmbda=20.0)[0]
            assert 0 < found.trace[-1].distortion < 1
            assert found.trace[-1].cost < found.trace[0].cost, kind

    def test_curvature_predicts_the_distortion_of_a_perturbation(
        self, codec: Codec, images: torch.Tensor
    ) -> None:
        objective = Objective(codec, images[:1], codec.lmbda)
        state = Search(objective, codec.analyse(codec.pad(images[:1])), 1, [0], None)
        curvature = torch.stack([distortion_curvature(state, state.best)["y"] for _ in range(30)]).mean(0)
        coded = codec.code(state.best, lambda _, r: r)
        values = {n: c.value.detach() for n, c in coded.items()}
        base = codec.synthesise(values)
        signs = [
            torch.randn(values["y"].shape, generator=torch.Generator().manual_seed(s)).sign()
            for s in range(30)
        ]
        measured = []
        for sign in signs:
            moved = codec.synthesise({**values, "y": values["y"] + 0.1 * sign})
            measured.append(codec.lmbda * 255**2 * float((moved - base).square().mean()))
        predicted = 0.5 * 0.1**2 * float(curvature.sum())
        assert predicted == pytest.approx(float(np.mean(measured)), rel=0.25)


class TestExaggeration:
    def test_a_synthesis_that_leaves_float32_ends_no_search(
        self, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        codec = load_codec("lapped-tiny", device="cpu", precision="fp32")

        def exaggerated(values: Any, *, exact: bool = False) -> torch.Tensor:
            return 0.5 + 1e22 * (codec.synthesise(values, exact=exact) - 0.5)

        strange = copy.copy(codec)
        monkeypatch.setattr(strange, "synthesise", exaggerated)
        found = search(strange, images, load_profile("medium"), lmbda=0.01)
        assert len(found) == BATCH
        for one in found:
            assert all(bool(tensor.isfinite().all()) for tensor in one.latents.values())
            assert one.trace[-1].cost <= one.trace[0].cost


def test_a_learning_rate_for_a_latent_that_the_codec_does_not_have_is_refused(
    codec: Codec, images: torch.Tensor
) -> None:
    wrong = profile_of(MEAN_FIELD | {"learning_rate_of": {"Z": 0.1}})
    with pytest.raises(
        ProfileError, match=r"^test: stage\.learning_rate_of\.Z: tiny has no such latent; use "
    ):
        search(codec, images, wrong, lmbda=codec.lmbda)
    search(codec, images, profile_of(MEAN_FIELD | {"learning_rate_of": {"z": 0.1}}), lmbda=codec.lmbda)
