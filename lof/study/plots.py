"""Plots of a study, Optuna's own, as PNG files."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from lof.report.canvas import png
from lof.study.schema import Study

if TYPE_CHECKING:
    import optuna

_NAMES = {
    "cost": "true cost against plain encoding",
    "bd-rate": "BD-rate against plain encoding",
    "gradient-evaluations": "gradient evaluations per image",
    "seconds": "seconds per image",
}


def plots(study: Study, found: optuna.Study) -> dict[str, bytes]:
    """History; with two objectives the Pareto front; importance of parameters where enough trials tell it; by file."""
    from matplotlib import pyplot
    from optuna.visualization import matplotlib as draw

    def made(plot: Any, **settings: Any) -> bytes:
        axes = plot(found, **settings)
        axes.figure.set_layout_engine("constrained")
        try:
            return png(axes.figure)
        finally:
            pyplot.close(axes.figure)

    gain: dict[str, Any] = {
        "target": lambda trial: trial.values[0],
        "target_name": _NAMES[study.objectives[0]],
    }
    gains = [trial.values[0] for trial in found.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]
    with warnings.catch_warnings(), pyplot.rc_context():  # Optuna changes the style of all plots
        warnings.simplefilter("ignore")  # that plots are experimental, and what importance means
        files = {"history.png": made(draw.plot_optimization_history, **gain)}
        if len(gains) >= 2 * len(study.space) and len(set(gains)) > 1:
            files["importance.png"] = made(draw.plot_param_importances, **gain)
        if len(study.objectives) > 1:
            names = [_NAMES[objective] for objective in study.objectives]
            files["pareto.png"] = made(draw.plot_pareto_front, target_names=names)
    return files
