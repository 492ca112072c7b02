"""Differentiable stand-ins for rounding.

Each maps unrounded residuals to relaxed ones of the same shape; as the temperature falls to 0 it becomes
rounding (noise excepted). Registered by name in :data:`RELAXATIONS`, which is also the test matrix.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor


class NoiseSource:
    """Random numbers per image, so that an image's noise does not depend on its neighbours in the batch."""

    def __init__(self, seeds: list[int], device: torch.device) -> None:
        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        self._device = device

    def uniform(self, shape: torch.Size) -> Tensor:
        """Uniform in [0, 1), float32, of shape (B, ...) with one generator per image."""
        draws = [torch.rand(shape[1:], generator=g, device=self._device) for g in self._generators]
        return torch.stack(draws)


class Relaxation(ABC):
    """One relaxation; stateless.

    Invariants, checked for every registered relaxation by ``tests/search/test_search.py``:

    1. The output has the input's shape and dtype and lies within 1.5 of it.
    2. Gradients are finite everywhere, integers and half-integers included.
    3. Deterministic relaxations commute with shifts by integers.
    4. At ``temperature`` 0.01 an input within 0.3 of an integer lands within 0.05 of it (not ``noise``).
    5. The same noise source state gives the same output.
    """

    name: ClassVar[str]

    @abstractmethod
    def __call__(self, residual: Tensor, temperature: float, noise: NoiseSource) -> Tensor:
        """Relax ``residual`` (B, C, h, w), float32.

        Args:
            residual: what the codec rounds: ``y - μ`` or ``z - median``.
            temperature: > 0; high is soft, low is near rounding.
            noise: where random relaxations draw from.
        """


class Noise(Relaxation):
    """Additive uniform noise in ±½, the training-time proxy (Ballé et al. 2017). Ignores the temperature."""

    name = "noise"

    def __call__(self, residual: Tensor, temperature: float, noise: NoiseSource) -> Tensor:
        return residual + (noise.uniform(residual.shape) - 0.5)


class StraightThrough(Relaxation):
    """Rounding forwards, identity backwards (Theis et al. 2017). Ignores the temperature."""

    name = "ste"

    def __call__(self, residual: Tensor, temperature: float, noise: NoiseSource) -> Tensor:
        return residual + (torch.round(residual) - residual).detach()


class SoftRound(Relaxation):
    """``floor(x) + ½ tanh(r/T)/tanh(1/2T) + ½`` with ``r = x - floor(x) - ½`` (Agustsson & Theis 2020).

    The temperature is their 1/α, as in C3 (Kim et al. 2023).
    """

    name = "soft-round"

    def __call__(self, residual: Tensor, temperature: float, noise: NoiseSource) -> Tensor:
        return soft_round(residual, temperature)


class NoisySoftRound(Relaxation):
    """Soft rounding, noise in ±¼·min(1, T), soft rounding again: C3's noisy variant with uniform noise."""

    name = "noisy-soft-round"

    def __call__(self, residual: Tensor, temperature: float, noise: NoiseSource) -> Tensor:
        spread = 0.5 * min(1.0, temperature) * (noise.uniform(residual.shape) - 0.5)
        return soft_round(soft_round(residual, temperature) + spread, temperature)


class StochasticGumbel(Relaxation):
    """SGA: a relaxed choice between floor and ceiling with atanh logits (Yang et al. 2020)."""

    name = "sga"

    def __call__(self, residual: Tensor, temperature: float, noise: NoiseSource) -> Tensor:
        floor, fraction = _floor(residual)
        logits = torch.stack((-torch.atanh(_inside(fraction)), -torch.atanh(_inside(1 - fraction))), -1)
        return floor + _gumbel_softmax(logits / temperature, temperature, noise)[..., 1]


class SigmoidScaledLogit(Relaxation):
    """SGA+ with two classes: ``p(floor) = sigmoid(-a logit(v))``, a = 4/3 (Perugachi-Diaz et al. 2024)."""

    name = "ssl"
    slope = 4 / 3

    def __call__(self, residual: Tensor, temperature: float, noise: NoiseSource) -> Tensor:
        floor, fraction = _floor(residual)
        odds = self.slope * torch.logit(_inside(fraction))
        logits = torch.stack(
            (torch.nn.functional.logsigmoid(-odds), torch.nn.functional.logsigmoid(odds)), -1
        )
        return floor + _gumbel_softmax(logits / temperature, temperature, noise)[..., 1]


class ThreeClass(Relaxation):
    """SGA+ with three classes: the nearest integer and both its neighbours (Perugachi-Diaz et al. 2024).

    ``p(k) ∝ sigmoid(-a logit(r·|w - k|))ⁿ`` with w the distance to the nearest integer, r = 0.98, n = 2.5;
    an integer further than 1 away has no probability.
    """

    name = "ssl3"
    slope, reach, power = 4 / 3, 0.98, 2.5

    def __call__(self, residual: Tensor, temperature: float, noise: NoiseSource) -> Tensor:
        nearest = torch.round(residual).detach()
        classes = residual.new_tensor((-1.0, 0.0, 1.0))
        distance = ((residual - nearest).unsqueeze(-1) - classes).abs() * self.reach
        possible = distance < self.reach
        odds = self.slope * torch.logit(_inside(distance))
        logits = self.power * torch.nn.functional.logsigmoid(-odds)
        logits = torch.where(possible, logits, logits.new_tensor(-30.0))
        weights = _gumbel_softmax(logits / temperature, temperature, noise)
        return nearest + (weights * classes).sum(-1)


def soft_round(x: Tensor, temperature: float) -> Tensor:
    """Soft rounding of any float tensor; the identity for temperatures so high that tanh is linear."""
    if temperature > 100:
        return x
    floor = torch.floor(x).detach()
    scale = 0.5 / math.tanh(0.5 / temperature)
    return floor + scale * torch.tanh((x - floor - 0.5) / temperature) + 0.5


def _floor(residual: Tensor) -> tuple[Tensor, Tensor]:
    floor = torch.floor(residual).detach()
    return floor, residual - floor


def _inside(v: Tensor) -> Tensor:
    # atanh and logit are infinite at the ends; Yang et al. clip at the same distance.
    return v.clamp(1e-5, 1 - 1e-5)


def _gumbel_softmax(logits: Tensor, temperature: float, noise: NoiseSource) -> Tensor:
    """A sample of the relaxed categorical distribution over the last dimension (Jang et al. 2017)."""
    uniform = noise.uniform(logits.shape).clamp(1e-10, 1 - 1e-7)
    return torch.softmax((logits - torch.log(-torch.log(uniform))) / temperature, -1)


RELAXATIONS: dict[str, Relaxation] = {
    relaxation.name: relaxation
    for relaxation in (
        Noise(),
        StraightThrough(),
        SoftRound(),
        NoisySoftRound(),
        StochasticGumbel(),
        SigmoidScaledLogit(),
        ThreeClass(),
    )
}
