"""``lof optimize``: smaller files of the same quality, for one image or a hundred thousand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lof.cli import app
from lof.codecs import DEFAULT_CODEC
from lof.containers import CONTAINERS, DEFAULT_CONTAINER

if TYPE_CHECKING:
    from lof.files.storage import Location
    from lof.jobs import JobSettings, Summary
    from lof.profiles import Profile

_SEARCH, _WORKERS, _OUTPUT = "What is searched", "Who does the work", "What is written and shown"
GPU_BATCH = 8

_HELP = (
    "Search better latents for each image and write streams that the codec's own decoder reads.\n\n"
    "Every stream is decoded and measured before it is kept; where the search did not win, the plain "
    "encoding is written. Interrupted, the same command continues. Reports are about the images of the call."
)


@app.command("optimize", help=_HELP)
def optimize(
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Images, folders, quoted globs or URLs (s3://bucket/folder).",
            metavar="INPUTS",
            show_default=False,
        ),
    ],
    *,
    out: Annotated[
        str,
        typer.Option(
            "-o", "--out", help="Folder or URL for streams and reports; a second run continues there."
        ),
    ] = "lof-out",
    codec: Annotated[
        str | None,
        typer.Option(
            help="Codec, see `lof codecs`; msp: the tier that fits the profile.",
            show_default=DEFAULT_CODEC,
            rich_help_panel=_SEARCH,
        ),
    ] = None,
    quality: Annotated[
        int | None,
        typer.Option(
            help="Rate point, 1 (smallest) to 8.", show_default="the codec's", rich_help_panel=_SEARCH
        ),
    ] = None,
    metric: Annotated[
        str, typer.Option(help="What the codec was trained for: mse or ms-ssim.", rich_help_panel=_SEARCH)
    ] = "mse",
    profile: Annotated[
        str,
        typer.Option(
            help="Effort: fast, medium, high, max or a TOML file, see `lof profiles`; auto with a limit.",
            rich_help_panel=_SEARCH,
        ),
    ] = "medium",
    budget: Annotated[
        str | None,
        typer.Option(
            help="With --profile auto: time for the largest image, such as 20s.",
            metavar="TIME",
            show_default=False,
            rich_help_panel=_SEARCH,
        ),
    ] = None,
    deadline: Annotated[
        str | None,
        typer.Option(
            help="With --profile auto: time for the whole job, such as 2h.",
            metavar="TIME",
            show_default=False,
            rich_help_panel=_SEARCH,
        ),
    ] = None,
    lmbda: Annotated[
        float | None,
        typer.Option(
            "--lambda",
            help="λ of rate + λ·distortion; larger is better and bigger.",
            show_default="the codec's",
            rich_help_panel=_SEARCH,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of all randomness.", rich_help_panel=_SEARCH)] = 0,
    weights: Annotated[
        Path | None,
        typer.Option(help="Folder with the codec's weights.", show_default=False, rich_help_panel=_SEARCH),
    ] = None,
    device: Annotated[
        str, typer.Option(help="Where the search runs: auto, cpu, cuda or cuda:N.", rich_help_panel=_SEARCH)
    ] = "auto",
    precision: Annotated[
        str, typer.Option(help="Of the search alone: auto, bf16 or fp32.", rich_help_panel=_SEARCH)
    ] = "auto",
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Workers, each a process with its share of the cores. "
            "Streams of different --jobs are as good, but may differ in some bytes.",
            show_default="1; with --ray what there is room for",
            rich_help_panel=_WORKERS,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, help="CPU threads of each worker.", show_default="a share", rich_help_panel=_WORKERS
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Images of one size that a worker searches together.",
            show_default=f"1; {GPU_BATCH} with --num-gpus or on CUDA here",
            rich_help_panel=_WORKERS,
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            help="Workers of a Ray cluster: local starts one here, auto finds one here, or HOST:PORT of "
            "its head node. Needs the extra lof\\[ray].",
            metavar="CLUSTER",
            show_default=False,
            rich_help_panel=_WORKERS,
        ),
    ] = None,
    num_gpus: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="GPUs of each worker of the cluster, fractions too.",
            show_default="1 if it has any",
            rich_help_panel=_WORKERS,
        ),
    ] = None,
    format: Annotated[
        str,
        typer.Option(
            help=" or ".join(f"{known.name} ({known.summary})" for known in CONTAINERS.values()) + ".",
            rich_help_panel=_OUTPUT,
        ),
    ] = DEFAULT_CONTAINER,
    strip: Annotated[
        bool, typer.Option("--strip", help="Leave ICC profile and EXIF out.", rich_help_panel=_OUTPUT)
    ] = False,
    json: Annotated[
        bool,
        typer.Option(
            "--json", help="One JSON object per image on stdout, nothing else.", rich_help_panel=_OUTPUT
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what would be done; write nothing.", rich_help_panel=_OUTPUT),
    ] = False,
    no_report: Annotated[
        bool, typer.Option("--no-report", help="No report.html, .csv and .jsonl.", rich_help_panel=_OUTPUT)
    ] = False,
) -> None:
    """Find the images, do the job, show what came of it; the help stands in ``_HELP``."""
    from lof.cli import _display
    from lof.cli._effort import AUTO, pick
    from lof.codecs import codec_for
    from lof.errors import UsageError
    from lof.files.inputs import find
    from lof.files.storage import parse
    from lof.jobs import JobSettings, run_job
    from lof.pools import make_pool
    from lof.profiles import load_profile

    def settings_of(chosen: Profile, name: str) -> JobSettings:
        return JobSettings(
            codec=name,
            profile=chosen,
            quality=quality,
            metric=metric,
            weights=weights,
            lmbda=lmbda,
            seed=seed,
            device=device,
            precision=precision,
            format=format,
            strip=strip,
        )

    if profile != AUTO and (budget or deadline):
        raise UsageError("--budget and --deadline go with --profile auto only")
    place = parse(out)
    plan = load_profile("fast" if profile == AUTO else profile)
    settings = settings_of(plan, codec_for(codec, plan.name))
    found = find(inputs, exclude=place)
    _display.show_ignored(found)
    if profile == AUTO:
        plan, name = pick(
            codec,
            lambda name: settings_of(plan, name).load(),
            found.sources,
            budget=budget,
            deadline=deadline,
            jobs=jobs,
            threads=threads,
            ray=ray,
        )
        settings = settings_of(plan, name)
    if dry_run:
        from lof.cli._dry_run import show_plan

        show_plan(found.sources, place, settings, json=json)
        return
    pool = make_pool(jobs, threads=threads, ray=ray, num_gpus=0.0 if ray and device == "cpu" else num_gpus)
    batch = batch or (GPU_BATCH if _on_gpus(device, ray, num_gpus) else 1)
    with _display.choose(len(found.sources), json=json) as display:
        summary = run_job(found.sources, place, settings, pool=pool, batch=batch, on_event=display)
    reports = [] if no_report else _write_reports(summary, place, settings)
    if not json:
        _display.show_summary(summary, reports)
    raise typer.Exit(summary.exit_code)


def _on_gpus(device: str, ray: str | None, num_gpus: float | None) -> bool:
    from lof.machine.devices import resolve_device

    if ray:  # this machine may have none where the cluster has some
        return bool(num_gpus) or device.startswith("cuda")
    return resolve_device(device).type == "cuda"


def _write_reports(summary: Summary, out: Location, settings: JobSettings) -> list[Location]:
    from lof.jobs.crops import crop_path, read_crop
    from lof.report import Crops, write_reports

    def crops(record: dict[str, object]) -> Crops | None:
        triple = read_crop(crop_path(out, str(record["source"])))
        return None if triple is None else Crops(*triple)

    title = f"{settings.codec}, profile {settings.profile.name}"
    return write_reports(summary.records, out, title=title, crops=crops)
