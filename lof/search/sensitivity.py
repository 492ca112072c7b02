"""How sensitive the cost is to each latent element: what tells how long a step may be."""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

from lof.codecs import Latents
from lof.search.expected import decoded, expected_bits
from lof.search.objective import Objective
from lof.search.relaxations import NoiseSource, soft_round
from lof.search.state import Search, Sensitivity

_STEEPEST: Final = 1e12


def measured(state: Search, latents: Latents, side: float) -> Sensitivity:
    """How sensitive the cost is at these latents; in a search's first stage, as an earlier search of the same images
    has measured it.

    Args:
        side: as for :func:`natural_steps`.
    """
    known, lmbda = state.sensitivity, state.objective.lmbda
    if not known.curvature or state.stage > 1:
        known.curvature = distortion_curvature(state, latents)
        known.natural = natural_steps(state, latents, known.curvature, side)
    elif known.lmbda != lmbda:
        by = lmbda / known.lmbda
        known.curvature = {name: by * tensor for name, tensor in known.curvature.items()}
        known.natural |= {name: known.natural[name] * by**-0.5 for name in known.curvature}
    known.lmbda = lmbda
    return known


def natural_steps(state: Search, latents: Latents, curvature: Latents, side: float) -> Latents:
    """The change of an element that costs about half a bit: h^-½ with h the curvature of the cost in bits, the mean
    of a channel in an image; (B, C, 1, 1) by name.

    Of synthesised latents it is the distortion's curvature, as their own rate is followed exactly. Of the others it is
    that of the rate of everything that they inform, by the Fisher information: for a model that tells the truth, the
    curvature of a code length in nats is the mean square of its gradient. One backward pass from random signs on the
    bits of all elements estimates the sum of the squares.

    Args:
        curvature: of the distortion, as from :func:`distortion_curvature`.
        side: temperature of the soft rounding of the latents that are not synthesised.
    """
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in latents.items()}
    coded = state.codec.code(leaves, lambda name, r: r if name in curvature else soft_round(r, side))
    signed = torch.zeros((), device=state.codec.device)
    for name, part in coded.items():
        bits = expected_bits(part)[0] if name in curvature else part.bits
        signs = 2 * torch.round(state.noise.uniform(bits.shape)) - 1
        signed = signed + (signs * bits).sum()
    probes = torch.autograd.grad(signed, list(leaves.values()), materialize_grads=True)
    found = {}
    for name, probe in zip(leaves, probes, strict=True):
        bend = (
            state.objective.pixels * curvature[name]
            if name in curvature
            else math.log(2) * finite(probe.square())
        )
        found[name] = bend.mean((2, 3), keepdim=True).clamp_min(1e-12).rsqrt()
    return found


def distortion_curvature(state: Search, latents: Latents) -> Latents:
    """Estimate of ``λ·∂²D/∂value²`` of each element of the synthesised latents, (B, C, h, w) by name.

    One probe, smoothed as the product of a channel's mean and a place's mean, since one probe is noisy. Counts as one
    gradient evaluation.
    """
    state.evaluations += 1
    with torch.no_grad():
        coded = state.codec.code(latents, lambda _, residual: residual)
    values, image = decoded(state, coded)
    probes = torch.autograd.grad(probed(image, state.objective, state.noise), list(values.values()))
    return {name: smoothed(probe.square()) for name, probe in zip(values, probes, strict=True)}


def probed(image: Tensor, objective: Objective, noise: NoiseSource) -> Tensor:
    """A decoded image, (B, 3, H, W), against random signs: its gradient, squared, estimates ``λ·∂²D/∂value²``.

    Hutchinson's probe of the Gauss-Newton diagonal.
    """
    signs = 2 * torch.round(noise.uniform(image.shape)) - 1
    return (image * signs * objective.error_curvature(image).sqrt()).sum()


def smoothed(raw: Tensor) -> Tensor:
    """One probe of a curvature, (B, C, h, w), as the product of its channel's mean and its place's mean."""
    raw = finite(raw)
    place = torch.nn.functional.avg_pool2d(raw.mean(1, keepdim=True), 5, 1, 2, count_include_pad=False)
    return raw.mean((2, 3), keepdim=True) * place / place.mean((1, 2, 3), keepdim=True).clamp_min(1e-20)


def finite(raw: Tensor) -> Tensor:
    """Squares of slopes, cut so that products of two are finite: some syntheses grow without bounds."""
    return raw.nan_to_num(0.0, _STEEPEST).clamp_max(_STEEPEST)
