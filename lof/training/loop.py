"""A whole run: the ladder of rate points, log, validation on real files, checkpoints that resume exactly."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from lof.codecs import trainable
from lof.errors import TrainingError, one_line
from lof.files.atomic import remove_leftovers
from lof.machine.devices import resolve_device
from lof.training.checkpoint import Checkpoint, alone_in, damaged, load_checkpoint, save_checkpoint
from lof.training.data import Pool, Skipped, load_pool, load_validation
from lof.training.hardware import describe_hardware
from lof.training.journal import Journal, Record, plot
from lof.training.latents import analyse
from lof.training.measure import load_written, measure, summarise, write_weights
from lof.training.recipe import Recipe, Rung
from lof.training.rehearsal import rehearse
from lof.training.step import Stepper, learning_rate
from lof.training.trained import Trained, read_trained

CHECKPOINT, LOG, PLOT = "checkpoint.pt", "log.jsonl", "plot.png"
SECONDS_BETWEEN_WORDS = 10


@dataclass(frozen=True)
class Doing:
    """Something begins that may take a while."""

    text: str


@dataclass(frozen=True)
class Started:
    """Pictures are in memory; ``resumed`` is the rung and step that the run goes on from."""

    pictures: int
    pixels: int
    skipped: list[Skipped]
    device: str
    resumed: tuple[int, int] | None


@dataclass(frozen=True)
class Logged:
    """A line of the log was written: ``kind`` is ``train`` or ``validation``."""

    record: Record


@dataclass(frozen=True)
class Finished:
    """A rung is trained; its checkpoint, for ``lof export-weights``, is at ``path``."""

    path: Path


Event = Doing | Started | Logged | Finished
OnEvent = Callable[[Event], None]


@dataclass(frozen=True)
class Group:
    """This process among those that train together; alone by default.

    Attributes:
        wrap: makes a module data-parallel over the group.
        on_log: called in every process of the group at the same steps.
        wait: returns when all processes of the group have come to it.
    """

    rank: int = 0
    world: int = 1
    wrap: Callable[[nn.Module], nn.Module] | None = None
    on_log: Callable[[Record], None] | None = None
    wait: Callable[[], object] | None = None


def train(
    recipe: Recipe,
    folder: Path,
    *,
    device: str = "auto",
    on_event: OnEvent | None = None,
    group: Group | None = None,
) -> list[Path]:
    """Train every rung of a recipe, or continue where ``folder``'s checkpoint stands.

    A run that is cut and continued on the same machine gives the same losses, bit by bit, as one that was
    not: the schedule counts steps, and the random numbers of a step depend on the recipe's seed and the step
    alone. Sets the process's global random numbers.

    On CUDA the step is compiled and captured as a graph, unless the recipe says ``compile = false``.

    Args:
        folder: gets ``checkpoint.pt``, ``log.jsonl``, ``plot.png``, and a checkpoint per finished rung:
            ``quality-<n>.pt``, or ``rung-<n>.pt`` where one network serves all rates.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Returns:
        The checkpoints of the rungs, in the order of the recipe.

    Raises:
        TrainingError: nothing to train on, another run's checkpoint, or the loss diverged; the last good
            checkpoint stays.
        OutputError: ``folder`` cannot be written, or another process trains there.
    """
    group = group or Group()
    recipe.check_shared(group.world)
    chosen = resolve_device(device)
    rehearse(recipe, recipe.precision_on(chosen), begins=not (folder / CHECKPOINT).exists())
    with alone_in(folder) if group.rank == 0 else nullcontext():
        return _Run(recipe, folder, chosen, on_event or _ignore, group).run()


class _Run:
    def __init__(
        self, recipe: Recipe, folder: Path, device: torch.device, on_event: OnEvent, group: Group
    ) -> None:
        self.recipe, self.folder, self.on_event, self.group = recipe, folder, on_event, group
        self.device, self.precision = device, recipe.precision_on(device)
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = True
        self.told = -math.inf
        self.pool = load_pool(recipe.data.train, recipe.largest_crop, self.device, self._reading)
        data = recipe.data
        self.pictures, skipped = load_validation(data.validation, recipe.metric, data.validation_images)
        self.about = {
            "hardware": describe_hardware(self.device, group.world),
            "pictures": len(self.pool.images),
            "pixels": self.pool.pixels,
            "precision": str(self.precision).removeprefix("torch."),
        }
        self.journal = Journal(folder / LOG)
        self.resumed = self._find_checkpoint()
        position = (self.resumed.rung, self.resumed.step) if self.resumed else None
        self.seconds, self.pixels, self.started = 0.0, 0, time.monotonic()
        if group.rank == 0:
            written = (folder / name for name in (CHECKPOINT, LOG, PLOT, *recipe.checkpoints))
            # A folder of latents that a recipe names is another run's too, which may be writing there.
            latents = map(self._latents, recipe.rung) if recipe.data.latents is None else ()
            remove_leftovers([*written, *latents])
            self.journal.cut_after(*(position or (-1, 0)))
            all_skipped = self.pool.skipped + skipped
            self._emit(
                Started(len(self.pool.images), self.pool.pixels, all_skipped, str(self.device), position)
            )

    def run(self) -> list[Path]:
        first = self.resumed.rung if self.resumed else 0
        for index in range(first, len(self.recipe.rung)):
            self._train_rung(index)
        return [self.folder / name for name in self.recipe.checkpoints]

    def _reading(self, done: int, total: int) -> None:
        if time.monotonic() - self.told > SECONDS_BETWEEN_WORDS:
            self._emit(Doing(f"reading pictures, {done} of {total}"))
            self.told = time.monotonic()

    def _find_checkpoint(self) -> Checkpoint | None:
        path = self.folder / CHECKPOINT
        if not path.exists():
            return None
        found = load_checkpoint(path)
        if not self.recipe.continues(found.recipe):
            raise TrainingError(f"{path}: belongs to another recipe; choose another output folder")
        if any(found.about[key] != self.about[key] for key in ("pictures", "pixels")):
            raise TrainingError(
                f"{path}: was trained on other pictures; name the same folders, or another output"
            )
        return found

    def _train_rung(self, index: int) -> None:
        rung = self.recipe.rung[index]
        self.index, self.rung, self.lowest = index, rung, math.inf
        self.stepper, pool = self._stepper(index)
        if self.resumed:
            self._restore(self.resumed)
            self.resumed = None
            self._validate(self._owed())
        stepper = self.stepper
        self.saved = self.logged = time.monotonic()
        while stepper.step < rung.steps:
            seed = _seed(self.recipe.seed, index, stepper.step, self.group.rank)
            torch.manual_seed(seed)
            crop, batch = self.recipe.crops(rung, stepper.step)
            stepper.advance(pool.batch(batch // self.group.world, seed, crop, self.recipe.varied))
            self.pixels += batch * crop**2
            self._after_step()
        path = self.folder / self.recipe.checkpoints[index]
        self._save(self.folder / CHECKPOINT)
        self._save(path)
        if self.group.wait:
            self.group.wait()
        if self.group.rank == 0:
            self._emit(Finished(path))

    def _stepper(self, index: int) -> tuple[Stepper, Pool]:
        recipe, rung, family = self.recipe, self.rung, trainable(self.recipe.codec)
        torch.manual_seed(_seed(recipe.seed, index, -1, 0))
        net = family.build(recipe.network)
        start = Path(recipe.init) if index == 0 and recipe.init else None
        if index > 0:
            start = self.folder / recipe.checkpoints[index - 1]
        if start is not None and self.resumed is None:
            family.load(net, read_trained(start).state, str(start))
        task = family.task(net.to(self.device), recipe.aim(rung, self.precision))
        pool = self.pool
        if task.kept is not None:
            self._emit(Doing("computing the latents of all pictures"))
            pool = analyse(self.pool, task.kept, self.precision, self._latents(rung))
        if task.start is not None and start is None and self.resumed is None:
            self._emit(Doing("preparing the new network with statistics of the pictures"))
            task.start(pool)
        return Stepper(task, recipe, rung, wrap=self.group.wrap), pool

    def _latents(self, rung: Rung) -> Path:
        folder = Path(self.recipe.data.latents or self.folder)
        return folder / f"latents-{self.recipe.frozen}-{rung.quality or 0:.10g}.pt"

    def _after_step(self) -> None:
        step, recipe, rung = self.stepper.step, self.recipe, self.rung
        last = step == rung.steps
        if step % recipe.log_every == 0 or last:
            self._log()
        owed = self._owed()
        if owed or (not last and time.monotonic() - self.saved > 60 * recipe.checkpoint_minutes):
            self._save(self.folder / CHECKPOINT)  # before the validation, which may take long, or fail
            self.saved = time.monotonic()
        self._validate(owed)

    def _log(self) -> None:
        loss, bpp, distortion, norm = self._healthy_means()
        self.lowest = min(self.lowest, loss)
        now = time.monotonic()
        mse = distortion if self.recipe.metric == "mse" else 0.0
        record = self._record("train") | {
            "loss": loss,
            "bpp": bpp,
            "distortion": distortion,
            "psnr": 10 * math.log10(255**2 / mse) if mse else None,
            "gradient_norm": norm,
            "learning_rate": learning_rate(self.recipe.schedule, self.rung, self.stepper.step - 1),
            "steps_per_second": self.stepper.steps_summed / max(1e-9, now - self.logged),
        }
        self.stepper.flush()
        self.logged = now
        self._write(record)
        if self.group.on_log:
            self.group.on_log(record)

    def _owed(self) -> list[float]:
        """Qualities to validate at after this step that the log does not have yet."""
        recipe, rung, step = self.recipe, self.rung, self.stepper.step
        due = step % recipe.validate_every == 0 or step == rung.steps
        if not due or not self.pictures or self.group.rank != 0:
            return []
        here = [r for r in self.journal.read() if (r["rung"], r["step"]) == (self.index, step)]
        done = {r.get("quality") for r in here if r["kind"] == "validation"}
        return [quality for quality in recipe.rates(rung) if quality not in done]

    def _validate(self, qualities: list[float]) -> None:
        recipe, rung = self.recipe, self.rung
        if not qualities:
            return
        self._emit(Doing(f"measuring {len(self.pictures)} validation pictures"))
        trained = Trained(
            self.folder, self._averaged_state(), recipe.codec, recipe.metric, rung.quality, rung.lmbda
        )
        with TemporaryDirectory() as folder:
            path = write_weights(trained, Path(folder))
            for quality in qualities:
                found = summarise(measure(load_written(trained, path, quality), self.pictures))
                figures = {"loss": found.cost, "bpp": found.bpp, "psnr": found.psnr, "ms_ssim": found.ms_ssim}
                self._write(
                    self._record("validation") | {"quality": quality, **figures, "images": found.images}
                )
        plot(self.journal.read(), self.folder / PLOT)
        self.logged = time.monotonic()

    def _healthy_means(self) -> list[float]:
        """Means since the last log line; raises where the run has gone wrong."""
        bad, means = int(self.stepper.bad_step), self.stepper.means()
        if bad:
            self._stop(f"loss or gradient is no longer finite at step {bad}")
        if (
            self.stepper.steps_summed >= self.recipe.log_every
            and means[0] > self.recipe.diverged * self.lowest
        ):
            self._stop(
                f"diverged by step {self.stepper.step} (mean loss {means[0]:.4g}, lowest {self.lowest:.4g})"
            )
        return means

    def _stop(self, why: str) -> None:
        path = self.folder / CHECKPOINT
        kept = f"{path} holds the last good state" if path.exists() else "no checkpoint had been written"
        raise TrainingError(
            f"{self.recipe.name}, {self.recipe.title(self.index)}: {why}; {kept}; lower the learning_rate"
        )

    def _save(self, path: Path) -> None:
        self._healthy_means()
        if self.group.rank != 0:
            return
        stepper = self.stepper
        save_checkpoint(
            path,
            Checkpoint(
                recipe=self.recipe.model_dump(mode="json"),
                rung=self.index,
                step=stepper.step,
                sd=stepper.network.state_dict(),
                ema=stepper.ema,
                opt=stepper.optimiser.state_dict(),
                pending=[*stepper.sums.tolist(), float(stepper.steps_summed)],
                lowest=self.lowest,
                seconds=self._elapsed(),
                pixels=self.pixels,
                about=self.about,
            ),
        )

    def _restore(self, checkpoint: Checkpoint) -> None:
        stepper = self.stepper
        path = self.folder / CHECKPOINT
        trainable(self.recipe.codec).load(stepper.network, checkpoint.sd, str(path))
        # Parts that the network did not have then, or no longer has.
        if stepper.ema.keys() - checkpoint.sd.keys() or checkpoint.ema.keys() - stepper.ema.keys():
            raise TrainingError(
                f"{path}: is of an earlier version of this network; begin another folder with --init {path}"
            )
        try:
            for name, average in stepper.ema.items():
                average.copy_(checkpoint.ema[name])
            stepper.optimiser.load_state_dict(checkpoint.opt)
            *sums, count = checkpoint.pending
            stepper.sums.copy_(torch.tensor(sums, dtype=torch.float64))
            stepper.steps_summed = int(count)
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise damaged(path, one_line(error)) from error
        stepper.step = checkpoint.step
        self.lowest, self.seconds, self.pixels = checkpoint.lowest, checkpoint.seconds, checkpoint.pixels
        self.started = time.monotonic()

    def _averaged_state(self) -> dict[str, Tensor]:
        state = self.stepper.network.state_dict() | self.stepper.ema
        return {key: value.detach().cpu() for key, value in state.items()}

    def _record(self, kind: str) -> dict[str, Any]:
        before = sum(rung.steps for rung in self.recipe.rung[: self.index])
        return {
            "kind": kind,
            "rung": self.index,
            "quality": self.rung.quality,
            "step": self.stepper.step,
            "total_step": before + self.stepper.step,
            "seconds": round(self._elapsed(), 3),
        }

    def _write(self, record: Record) -> None:
        if self.group.rank == 0:
            self.journal.append(record)
            self._emit(Logged(record))

    def _elapsed(self) -> float:
        return self.seconds + time.monotonic() - self.started

    def _emit(self, event: Event) -> None:
        if self.group.rank == 0:
            self.on_event(event)


def _seed(*parts: int) -> int:
    """A seed that differs for every step and worker, 63 bits."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8]) >> 1


def _ignore(event: Event) -> None:
    pass
