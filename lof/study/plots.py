"""Plots of a study, as PNG files."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from lof.report.canvas import BLUE, GREY, INK, ORANGE, canvas, png, round_numbers
from lof.study.schema import Study

if TYPE_CHECKING:
    import optuna
    from matplotlib.axes import Axes
    from optuna.trial import FrozenTrial

_NAMES = {"cost": "true cost", "bd-rate": "BD-rate"}
_EFFORTS = {"gradient-evaluations": "gradient evaluations per image", "seconds": "seconds per image"}


def history(study: Study, found: optuna.Study) -> bytes:
    """Gain over trials: complete ones, the best so far, and those stopped early at their last running gain."""
    figure, axes = canvas()
    complete, stopped = _trials(found, "COMPLETE"), _trials(found, "PRUNED")
    axes.plot([t.number for t in complete], _gains(complete), "o", color=BLUE, markersize=5, label="complete")
    best: list[float] = []
    for gain in _gains(complete):
        best.append(min([gain, *best[-1:]]))
    axes.step([t.number for t in complete], best, where="post", color=ORANGE, label="best so far")
    last = [(t.number, 100 * t.user_attrs["running"][-1]) for t in stopped if t.user_attrs.get("running")]
    if last:
        axes.plot(
            *zip(*last, strict=True), "x", color=GREY, markersize=5, label="stopped early, gain until then"
        )
    axes.set_xlabel("trial")
    _gain_axis(axes, study)
    axes.legend(labelcolor=INK, edgecolor="none")
    return png(figure)


def pareto(study: Study, found: optuna.Study) -> bytes:
    """Gain over effort (logarithmic), the Pareto front as a line."""
    figure, axes = canvas()
    complete = _trials(found, "COMPLETE")
    front = sorted(found.best_trials, key=lambda trial: trial.values[1])
    axes.plot(
        [t.values[1] for t in complete], _gains(complete), "o", color=GREY, markersize=4, label="trials"
    )
    axes.plot(
        [t.values[1] for t in front], _gains(front), "-o", color=BLUE, markersize=6, label="Pareto front"
    )
    axes.set_xscale("log")
    axes.set_xlabel(_EFFORTS[study.objectives[1]])
    _gain_axis(axes, study)
    round_numbers(axes)
    axes.legend(frameon=False, labelcolor=INK)
    return png(figure)


def importance(study: Study, found: optuna.Study) -> bytes | None:
    """How much each parameter decides whether a trial is among the good ones (PED-ANOVA, Watanabe et al. 2023).

    ``None`` with too few complete trials to say.
    """
    complete = _trials(found, "COMPLETE")
    if len(complete) < 2 * len(study.space) or len(set(_gains(complete))) < 2:
        return None
    from optuna.importance import get_param_importances

    with warnings.catch_warnings():
        # That it tells what makes values low: as for a cost it should.
        warnings.simplefilter("ignore", UserWarning)
        shares = get_param_importances(found, target=lambda trial: trial.values[0])
    names = list(reversed(shares))
    figure, axes = canvas(height=1.2 + 0.34 * len(names))
    bars = axes.barh(names, [shares[name] for name in names], color=BLUE, height=0.6)
    axes.bar_label(bars, fmt="%.2f", padding=3, color=INK)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(f"importance for the {_NAMES[study.objectives[0]]} (PED-ANOVA)")
    axes.margins(x=0.12)
    return png(figure)


def _trials(found: optuna.Study, state: str) -> list[FrozenTrial]:
    return [trial for trial in found.get_trials(deepcopy=False) if trial.state.name == state]


def _gains(trials: list[FrozenTrial]) -> list[float]:
    return [100 * trial.values[0] for trial in trials]


def _gain_axis(axes: Axes, study: Study) -> None:
    name = _NAMES[study.objectives[0]]
    axes.set_ylabel(f"{name[0].upper()}{name[1:]} against plain encoding, %")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "−"))
