"""JointIQ in training: from lapped's weights, part by part, and all together for the picture that is shown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import lof
from lof.codecs import load_codec, trainable
from lof.codecs.lapped.jointiq.codec import JointCodec
from lof.codecs.lapped.jointiq.config import JOINTIQ, JOINTIQ_TINY
from lof.codecs.lapped.jointiq.network import JointNetwork
from lof.codecs.lapped.network import LappedNetwork
from lof.codecs.lapped.tables import Form, numbers_of
from lof.codecs.training import Aim
from lof.errors import TrainingError
from lof.training import export_weights, load_recipe, parse_recipe, train
from lof.training.checkpoint import load_checkpoint
from lof.training.data import Pool
from lof.training.trained import read_trained

NAME = "jointiq-tiny"
LAPPED = Path(lof.codecs.__path__[0]) / "lapped" / "data" / "lapped-tiny.safetensors"
AS_LAPPED = {"fine": 8, "coarse": 12, "slices": [4, 8]}


def aim(part: str | None = None) -> Aim:
    return Aim("mse", None, None, torch.float32, part=part)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    """All parts of a network, from lapped's weights."""
    folder = tmp_path_factory.mktemp("jointiq")
    content: dict[str, Any] = {
        "name": "test",
        "codec": NAME,
        "network": AS_LAPPED,
        "init": str(LAPPED),
        "crop": 128,
        "batch": 4,
        "precision": "fp32",
        "log_every": 2,
        "schedule": {"warmup": 2},
        "data": {"train": [str(photos)]},
        "rung": [{"steps": 2, "part": "prior"}, {"steps": 2, "part": "enhancement"}, {"steps": 2}],
    }
    train(parse_recipe(content), folder, device="cpu")
    return folder


def test_each_part_is_trained_alone_and_then_all_together(run: Path) -> None:
    paths = [run / f"rung-{number}.pt" for number in (1, 2, 3)]
    ends = [load_checkpoint(path).sd for path in paths]
    starts = [
        read_trained(path).state for path in (LAPPED, *paths)
    ]  # each from the averages of the one before

    def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
        keys = [k for k in before if k in after and before[k].is_floating_point()]
        return {k.split(".")[0] for k in keys if not torch.equal(before[k], after[k])}

    assert "transforms" not in moved(starts[0], ends[0])
    assert moved(starts[1], ends[1]) == {"enhancement"}
    assert {"transforms", "prior", "enhancement"} <= moved(starts[2], ends[2])


def test_what_is_trained_ships_and_is_loaded(run: Path, tmp_path: Path) -> None:
    points = export_weights([run / "rung-3.pt"], tmp_path, measure_on=None)
    codec = load_codec(NAME, 2.5, weights=tmp_path, device="cpu")
    assert codec.fingerprint.hex() == points[0].fingerprint
    assert codec.net.config == replace(  # type: ignore[attr-defined]
        JOINTIQ_TINY, fine=8, coarse=12, slices=(4, 8)
    )


def test_from_lapped_s_weights_all_but_the_mixture_begins_as_lapped() -> None:
    family = trainable(NAME)
    net = family.build(AS_LAPPED | {"components": 1, "refinement": (), "turned": ()})
    family.load(net, read_trained(LAPPED).state, str(LAPPED))
    assert isinstance(net, JointNetwork)
    net.settle()
    lapped = load_codec("lapped-tiny", 5, device="cpu")
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = lapped.symbols(lapped.analyse(image))
    cpu = torch.device("cpu")
    codec = JointCodec(net, name="t", quality=5, lmbda=1, device=cpu, precision=torch.float32)
    found = codec.symbols(codec.analyse(image))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    shown = [
        one.decompress(one.compress(symbols), 64, 64).image
        for one, symbols in ((lapped, expected), (codec, found))
    ]
    assert torch.equal(*shown)


def test_from_weights_with_a_form_of_their_tables_mixtures_begin_as_from_gaussian_ones(
    tmp_path: Path,
) -> None:
    gaussian = read_trained(LAPPED).state
    form = Form(0.1, 0.15, 0.3)
    octaves = 0.5 * math.log2(0.9 * 0.15**2 + 0.1 * 0.3**2)
    network = trainable("lapped-tiny").build({})
    trainable("lapped-tiny").load(network, gaussian, "")
    assert isinstance(network, LappedNetwork)
    with torch.no_grad():
        # As trained with that form: the scales told are as much larger as its Gaussians are narrow.
        for name, bias in network.prior.named_parameters():
            if name.endswith(("first.bias", "second.bias")):
                bias[len(bias) // 2 :] -= octaves
        network.side_scale[0] -= octaves
        assert network.tails is not None
        network.tails.copy_(numbers_of(form))
    shipped = trainable("lapped-tiny").ship(network.state_dict(), "mse", None, "").tensors
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    lengths = [len(_string(state, image)) for state in (gaussian, shipped)]
    assert lengths[1] == pytest.approx(lengths[0], rel=0.03)


def _string(state: Mapping[str, torch.Tensor], image: torch.Tensor) -> bytes:
    """What a network with mixtures writes that goes on from weights of lapped."""
    torch.manual_seed(0)
    net = trainable(NAME).build(AS_LAPPED)
    trainable(NAME).load(net, state, "")
    assert isinstance(net, JointNetwork)
    net.settle()
    codec = JointCodec(net, name="t", quality=5, lmbda=1, device=torch.device("cpu"), precision=torch.float32)
    (string,) = codec.compress(codec.symbols(codec.analyse(image)))
    return string


@pytest.mark.parametrize("turned", [1, 2])
def test_from_nothing_other_views_begin_as_the_linear_transforms_say(turned: int) -> None:
    net = trainable(NAME).build({"turned": (turned,)})
    assert isinstance(net, JointNetwork)
    task = trainable(NAME).task(net, aim())
    assert task.start is not None
    pixels = torch.randint(0, 256, (256, 256, 3), generator=torch.Generator().manual_seed(0))
    task.start(Pool([pixels.to(torch.uint8)], 64, []))
    shown = net.transforms
    assert len(shown.views) == turned
    for name, layer in shown.views.items():
        before = layer.weight.clone()
        shown.start_view(name)
        assert torch.equal(layer.weight, before)


@pytest.mark.parametrize("serial", [(), (1,)])
@pytest.mark.parametrize("part", [None, "prior", "enhancement"])
def test_gradients_reach_all_of_a_part_and_nothing_else(part: str | None, serial: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    family = trainable(NAME)
    net = family.build({"slices": (4, 3, 3), "mixed": 2, "serial": serial})
    assert isinstance(net, JointNetwork)
    with torch.no_grad():
        for parameter in net.parameters():  # what begins at 0 passes no gradient to what is before it
            parameter.add_(0.05 * torch.randn_like(parameter))
        net.prior.spread.add_(64)
    task = family.task(net.train(), aim(part))
    task.loss(torch.rand(2, 3, 64, 64))[0].backward()
    owners = {"prior": ("prior", "hyper_analysis", "side_scale", "tails"), "enhancement": ("enhancement",)}
    grouped = {id(p) for group in task.groups for p in group.parameters}
    for name, parameter in net.named_parameters():
        wanted = (part is None or name.startswith(owners[part])) and not name.startswith(
            "prior.slices.2.join"
        )
        assert parameter.requires_grad == wanted, name
        assert (id(parameter) in grouped) == wanted, name
        if wanted:
            assert parameter.grad is not None, name
            assert bool(parameter.grad.isfinite().all()), name


def test_the_loss_is_that_of_the_enhanced_picture() -> None:
    torch.manual_seed(0)
    family = trainable(NAME)
    net = family.build({})
    assert isinstance(net, JointNetwork)
    assert net.enhancement is not None
    task = family.task(net.eval(), aim("enhancement"))
    images = torch.rand(2, 3, 64, 64)
    torch.manual_seed(1)
    before = task.loss(images)[3]
    with torch.no_grad():
        net.enhancement.leave.bias.fill_(0.5)
    torch.manual_seed(1)
    assert abs(float(task.loss(images)[3]) - float(before)) > 1000


def test_shipped_recipes_build_what_they_say() -> None:
    for name in ("jointiq", "jointiq-decay"):
        recipe = load_recipe(name)
        with torch.device("meta"):
            net = trainable(recipe.codec).build(recipe.network)
        assert net.config == JOINTIQ  # type: ignore[comparison-overlap]
    recipe = load_recipe("jointiq-descriptors")
    with torch.device("meta"):
        net = trainable(recipe.codec).build(recipe.network)
    assert net.config.described  # type: ignore[union-attr, operator]
    assert [rung.part for rung in recipe.rung] == ["enhancement", "steering"]


def test_what_the_family_has_not_is_one_clear_error() -> None:
    family = trainable(NAME)
    with pytest.raises(TrainingError, match=r"^network: "):
        family.build({"components": 9})
    with pytest.raises(TrainingError, match="it has 'prior', 'enhancement', 'steering'"):
        family.task(family.build({}), aim("transforms"))
    with pytest.raises(TrainingError, match="no enhancement to train"):
        family.task(family.build({"enhancement": ()}), aim("enhancement"))
    with pytest.raises(TrainingError, match=r"^x: not weights of this network"):
        family.load(family.build({}), {}, "x")
