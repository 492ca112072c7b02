"""How networks with CompressAI's interface are trained: losses, prices of latents."""

from __future__ import annotations

import copy

import pytest
import torch
from compressai.layers import MaskedConv2d
from other_networks import FineCodec, OddCodec, untrained

from lof.codecs import CodecSpec, Points, RatePoint, codec_spec, codec_specs, register, trainable
from lof.codecs.network_training import LatentRate, NetworkTraining, RateDistortion
from lof.codecs.training import Aim
from lof.errors import TrainingError

SMALL = {"N": 8, "M": 12}


def aim(precision: torch.dtype = torch.float32) -> Aim:
    return Aim("mse", 4, 0.01, precision)


@pytest.mark.parametrize("name", ["tiny", "msp-tiny", *(s.name for s in codec_specs() if s.source == "zoo")])
def test_every_family_trains(name: str) -> None:
    torch.manual_seed(0)
    family = trainable(name)
    net = family.build(SMALL if codec_spec(name).source == "zoo" else {})
    for module in net.modules():
        if isinstance(module, MaskedConv2d):
            module.weight.data *= module.mask  # as every use of it does, in place
    before = {k: p.detach().clone() for k, p in net.named_parameters()}
    task = family.task(net, aim(torch.bfloat16))
    objective, total, bpp, distortion = task.loss(torch.rand(2, 3, 64, 64))
    objective.backward()
    assert total.item() == pytest.approx((bpp + 0.01 * distortion).item(), rel=1e-5)
    trained = {id(p) for group in task.groups for p in group.parameters}
    for key, parameter in net.named_parameters():
        assert id(parameter) in trained, key
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert torch.equal(parameter, before[key])


def test_a_network_that_does_not_exist_is_one_clear_error() -> None:
    for name, network, words in (
        ("mbt2018", {}, "sizes N and M"),
        ("tiny", {"K": 3}, "K: unknown; the sizes are N, M"),
        ("msp-tiny", {"depht": 3}, "depht: unknown; the sizes are transform_width, "),
        ("jpeg-descriptors-tiny", {"chanels": 3}, "chanels: unknown; the sizes are "),
        ("msp-tiny", {"components": 9}, "no such MSP codec"),
        ("tiny", {"N": [9]}, "N: must be one whole number"),
    ):
        with pytest.raises(TrainingError, match=f"^network: .*{words}"):
            trainable(name).build(network)


def test_the_synthesis_gets_rounded_latents_and_the_rate_noisy_ones() -> None:
    torch.manual_seed(0)
    net = trainable("tiny").build(SMALL)
    RateDistortion(net, aim())
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


def test_the_rate_is_that_of_rounded_latents_and_scales_get_its_gradient() -> None:
    torch.manual_seed(0)
    net = trainable("tiny").build({})
    plain = copy.deepcopy(net.gaussian_conditional)
    LatentRate(net, torch.float32, 16)
    y, means = 3 * torch.randn(1, 24, 6, 6), torch.randn(1, 24, 6, 6)
    scales = (0.2 + 2 * torch.rand_like(y)).requires_grad_()
    free = means.clone().requires_grad_()
    rounded, likelihood = net.gaussian_conditional(y, scales, means=free)
    assert torch.allclose(rounded, torch.round(y - means) + means)
    expected = plain.likelihood_lower_bound(plain._likelihood(torch.round(y - means), scales))
    assert torch.allclose(likelihood, expected, atol=1e-6)
    (ours,) = torch.autograd.grad(-likelihood.log2().sum(), scales, retain_graph=True)
    (theirs,) = torch.autograd.grad(-expected.log2().sum(), scales)
    certain = expected > 1e-6
    assert torch.allclose(ours[certain], theirs[certain], rtol=1e-3, atol=1e-4)
    (drawn,) = torch.autograd.grad(-likelihood.log2().sum(), free)
    assert torch.equal(drawn > 0, y < means)


def test_the_rate_of_frozen_transforms_counts_the_pixels_of_a_place_of_y() -> None:
    spec = CodecSpec("fine", Points({("mse", 4.0): RatePoint(0.013)}), 4, "from a test", hidden=True)
    register(spec)(lambda request: untrained(FineCodec, "fine"))
    net = untrained(FineCodec).net.requires_grad_(True)
    task = NetworkTraining("fine", FineCodec).task(net, Aim("mse", 4, 0.013, torch.float32, frozen="fine"))
    assert task.kept is not None
    assert task.kept.stride == 8
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        y = task.kept.analyse(images)
        codec = untrained(FineCodec)
        bits = sum(one.bits.sum() for one in codec.code(codec.analyse(images), codec.rounded).values())
        _, _, bpp, _ = task.loss.eval()(y)
    assert y.shape[2:] == (8, 8)
    assert bpp.item() == pytest.approx(float(bits) / 64**2, rel=0.01)
    assert task.stride == 32


def test_a_network_with_a_stride_of_its_own_is_trained_on_crops_that_it_takes() -> None:
    net = untrained(OddCodec).net.requires_grad_(True)
    task = NetworkTraining("odd", OddCodec).task(net, aim())
    assert task.stride == 12
    assert task.loss(torch.rand(1, 3, 192, 192))[0].isfinite()
