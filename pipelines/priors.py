"""Two priors on the same transforms: lapped's, and MSP's in its tiers, each trained from nothing for the same time.

    python -m pipelines.priors KODAK --data PHOTOS
    python -m pipelines.priors KODAK --data PHOTOS --quality 4 --minutes 10 --priors lapped,msp-base --count 6

Transforms are lapped's, as they ship, and do not change, so that pictures are the same and bits alone tell. Each prior
is trained for the one quality, on the same crops in the same order; the learning rate falls to nothing. Bits are those
of rounded latents by the model, which strings come within a per cent of.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Annotated, Protocol, cast

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from lof.codecs import load_codec
from lof.codecs.base import tensor_of
from lof.codecs.lapped.codec import LappedCodec, last
from lof.codecs.lapped.network import LappedNetwork
from lof.codecs.msp.config import TIERS
from lof.codecs.msp.network import MSPNetwork
from lof.errors import UsageError
from lof.files.inputs import find
from lof.pictures.batches import batches, spread
from lof.report.figures import percent
from lof.training.data import Pool, load_pool
from pipelines.command import Count, Folder, Threads, bar, run

CROP, BATCH, WARMUP = 256, 8, 100


class Prior(Protocol):
    """What is compared."""

    @property
    def module(self) -> nn.Module:
        """What is trained."""
        ...

    def bits(self, y: Tensor, *, hard: bool) -> Tensor:
        """Of latents, (B, M, h, w), in all; with noise, or rounded."""
        ...


class LappedPrior:
    """Lapped's own: side information, and four slices of channels in two passes."""

    def __init__(self, codec: LappedCodec) -> None:
        self.module, shipped = LappedNetwork(*codec.net.config.sizes), codec.net
        self.module.transforms.load_state_dict(shipped.transforms.state_dict())
        self.module.prior.spread.copy_(shipped.prior.spread)
        self.module.transforms.requires_grad_(False)
        self.module.hyper_analysis.c.weight.data.mul_(2)
        self.rate = torch.tensor([codec.number])

    def bits(self, y: Tensor, *, hard: bool) -> Tensor:
        """See :meth:`Prior.bits`."""
        _, of_y, of_z = self.module.price(last(y), self.rate.expand(len(y)), hard=hard)
        return of_y.sum() + of_z.sum()


class MSPPrior:
    """MSP's, of a tier, its groups in the same shares of lapped's channels."""

    def __init__(self, tier: str, codec: LappedCodec, y: Tensor) -> None:
        config, channels = TIERS[tier], codec.net.config.latent_channels
        ends = [
            round(channels * sum(config.groups[: i + 1]) / config.latent_channels)
            for i in range(len(config.groups))
        ]
        groups = tuple(end - start for start, end in zip([0, *ends], ends, strict=False))
        self.module = MSPNetwork(*replace(config, latent_channels=channels, groups=groups).sizes)
        self.module.calibrate(y.transpose(0, 1).flatten(1).std(1))
        for unused in (self.module.g_a, self.module.g_s):
            unused.requires_grad_(False)

    def bits(self, y: Tensor, *, hard: bool) -> Tensor:
        """See :meth:`Prior.bits`."""
        self.module.train(not hard)
        _, likelihoods = self.module._price(y)
        return torch.stack([-one.log2().sum() for one in likelihoods.values()]).sum()


@dataclass(frozen=True)
class Row:
    """What became of a prior.

    Attributes:
        rate: bits per pixel.
        steps: of its training.
        parameters: that were trained.
    """

    name: str
    rate: float
    steps: int
    parameters: int


def main(
    folder: Folder,
    *,
    data: Annotated[
        list[Path], typer.Option(help="Folder of training pictures; may be given several times.")
    ],
    quality: Annotated[float, typer.Option(help="Of lapped.")] = 4.0,
    minutes: Annotated[float, typer.Option(min=0, help="Of training, for each prior.")] = 10.0,
    priors: Annotated[str, typer.Option(help="By commas.")] = "lapped,msp-fast,msp-base,msp-high",
    learning_rate: Annotated[float, typer.Option(help="The highest, behind the first steps.")] = 2e-3,
    count: Count = None,
    threads: Threads = 1,
) -> None:
    """Train and measure, and print a table."""
    names = priors.split(",")
    for name in names:
        if name not in ("lapped", *TIERS):
            raise UsageError(f"--priors {name}: no such prior; they are lapped, {', '.join(TIERS)}")
    torch.set_num_threads(threads)
    codec = cast(LappedCodec, load_codec("lapped", quality, device="cpu", precision="fp32"))
    pool = load_pool([str(each) for each in data], CROP, torch.device("cpu"))
    pictures = [
        tensor_of(image.picture) for (image,) in batches(spread(find([folder]).sources, count), None, 1)
    ]
    latents = [(codec.analyse(codec.pad(one))["y"], one[0, 0].numel()) for one in pictures]
    rows = []
    for name in names:
        torch.manual_seed(0)
        prior = _prior(name, codec, pool)
        steps = _trained(prior, codec, pool, 60 * minutes, learning_rate, name)
        with torch.no_grad():
            rates = [float(prior.bits(y, hard=True)) / pixels for y, pixels in latents]
        parameters = sum(p.numel() for p in prior.module.parameters() if p.requires_grad)
        rows.append(Row(name, fmean(rates), steps, parameters))
    Console().print(to_table(rows))


def to_table(rows: Sequence[Row]) -> Table:
    """A row for each prior."""
    table = Table("prior", "bits per pixel", "against the first", "steps", "million parameters")
    for row in rows:
        change = percent(row.rate / rows[0].rate - 1)
        table.add_row(row.name, f"{row.rate:.4f}", change, str(row.steps), f"{row.parameters / 1e6:.1f}")
    return table


def _prior(name: str, codec: LappedCodec, pool: Pool) -> Prior:
    if name == "lapped":
        return LappedPrior(codec)
    return MSPPrior(name, codec, _latents(codec, pool, 0, 64))


@torch.no_grad()
def _latents(codec: LappedCodec, pool: Pool, seed: int, count: int) -> Tensor:
    return codec.analyse(pool.batch(count, seed))["y"]


def _trained(
    prior: Prior, codec: LappedCodec, pool: Pool, seconds: float, learning_rate: float, name: str
) -> int:
    """Train for so long; the module's averaged weights stay. How many steps that were."""
    trained: list[Tensor] = [p for p in prior.module.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(trained, lr=learning_rate, betas=(0.9, 0.99))
    averaged = [p.detach().clone() for p in trained]
    prior.module.train()
    step, started = 0, time.monotonic()
    with bar() as progress:
        task = progress.add_task(name, total=round(seconds))
        while (spent := time.monotonic() - started) < seconds:
            falls = 0.5 * (1 + math.cos(math.pi * spent / seconds))
            for group in optimiser.param_groups:
                group["lr"] = learning_rate * min(1, (step + 1) / WARMUP) * falls
            y = _latents(codec, pool, step, BATCH)
            loss = prior.bits(y, hard=False) / (len(y) * CROP**2)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
            step += 1
            decay = min(0.998, (1 + step) / (10 + step))
            with torch.no_grad():
                torch._foreach_lerp_(averaged, trained, 1 - decay)
            progress.update(
                task, completed=round(spent), description=f"{name}: {float(loss.detach()):.4f} bpp"
            )
    for parameter, mean in zip(trained, averaged, strict=True):
        parameter.data.copy_(mean)
    return step


if __name__ == "__main__":
    run(main)
