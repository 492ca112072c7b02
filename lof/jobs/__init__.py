"""Jobs: many files, several processes, interrupted and continued without losing or repeating work."""

from __future__ import annotations

from lof.jobs.events import Advanced, Event, Finished, Skipped, Started, Surveyed, Workers
from lof.jobs.runner import Plan, Summary, plan_job, run_job
from lof.jobs.settings import JobSettings

__all__ = [
    "Advanced",
    "Event",
    "Finished",
    "JobSettings",
    "Plan",
    "Skipped",
    "Started",
    "Summary",
    "Surveyed",
    "Workers",
    "plan_job",
    "run_job",
]
