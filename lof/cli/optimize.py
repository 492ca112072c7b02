"""``lof optimize``: smaller files of the same quality, for one image or a hundred thousand."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from lof.cli import _options as options
from lof.cli import app
from lof.cli._consoles import make_console
from lof.cli._targets import (
    TargetBpp,
    TargetBytes,
    TargetMsSsim,
    TargetPsnr,
    TargetPsnrInside,
    Total,
    memory_of,
    target_of,
)
from lof.codecs import DEFAULT_CODEC
from lof.containers import CONTAINERS

if TYPE_CHECKING:
    from lof.codecs import Codec
    from lof.files.inputs import Source
    from lof.files.storage import Location
    from lof.jobs import Event, JobSettings, Summary
    from lof.jobs.effort import Choice
    from lof.jobs.events import OnEvent
    from lof.profiles import Profile

GPU_BATCH = 8
TARGET_EFFORT = 1.5
"""Time of a search with a target over that of one without, as `--profile auto` counts it."""
AUTO = "auto"

_HELP = (
    "Search for better files: each image becomes a stream that the codec's own decoder reads.\n\n"
    "Every stream is decoded and measured before it is kept. Where the search finds nothing better, the plain "
    "encoding is written. You can stop the command at any time; the same command continues. The reports "
    "cover the images of this call."
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
            "-o", "--out", help="Folder or URL for streams and reports. A second run continues there."
        ),
    ] = "lof-out",
    codec: Annotated[
        str | None,
        options.default(
            DEFAULT_CODEC,
            "Codec, see `lof codecs`. With msp, the profile decides which of its tiers is used.",
            options.SEARCH,
        ),
    ] = None,
    quality: options.Quality = None,
    metric: options.Metric = "mse",
    profile: Annotated[
        str,
        typer.Option(
            help="How thoroughly to search: fast, medium, high, max or a TOML file, see `lof profiles`. "
            "auto picks one that fits --budget or --deadline.",
            rich_help_panel=options.SEARCH,
        ),
    ] = "medium",
    budget: Annotated[
        str | None,
        typer.Option(
            help="With --profile auto: time for the largest image, such as 20s.",
            metavar="TIME",
            show_default=False,
            rich_help_panel=options.SEARCH,
        ),
    ] = None,
    deadline: Annotated[
        str | None,
        typer.Option(
            help="With --profile auto: time for the whole job, such as 2h. Searches that are not done by then "
            "keep the best that they have found.",
            metavar="TIME",
            show_default=False,
            rich_help_panel=options.SEARCH,
        ),
    ] = None,
    lmbda: options.Lambda = None,
    target_bytes: TargetBytes = None,
    target_bpp: TargetBpp = None,
    target_psnr: TargetPsnr = None,
    target_psnr_inside: TargetPsnrInside = None,
    target_ms_ssim: TargetMsSsim = None,
    total: Total = False,
    memory: options.Memory = None,
    seed: options.Seed = 0,
    weights: options.Weights = None,
    no_portable: options.NoPortable = False,
    never_bigger: Annotated[
        bool,
        options.flag(
            "--never-bigger",
            "Keep the plain encoding where the better file would have more bytes. A lower cost may take some.",
            options.SEARCH,
        ),
    ] = False,
    against: Annotated[
        str,
        typer.Option(
            help="Find the bytes that other formats need at the same PSNR too: webp, avif, jxl (with lof\\[jxl]) or "
            "jpeg, or several by commas. Takes about 2 s of one core for a megapixel with webp and jpeg, 4 s with "
            "jxl, 30 to 100 s with avif, which no --budget or --deadline counts.",
            metavar="FORMATS",
            show_default=False,
            rich_help_panel=options.OUTPUT,
        ),
    ] = "",
    region: options.Region = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    jobs: options.Jobs = None,
    threads: options.Threads = None,
    batch: Annotated[
        int | None,
        options.default(
            f"1; {GPU_BATCH} with --num-gpus or on CUDA here",
            "How many images of one size a worker searches together.",
            options.WORKERS,
            min=1,
        ),
    ] = None,
    ray: options.Ray = None,
    num_gpus: options.NumGpus = None,
    format: Annotated[
        str,
        options.default(
            "lof; jpeg with the codecs jpeg and jpeg-descriptors",
            " or ".join(f"{known.name} ({known.summary})" for known in CONTAINERS.values()) + ".",
            options.OUTPUT,
        ),
    ] = "",
    strip: Annotated[
        bool, options.flag("--strip", "Leave ICC profile, EXIF and other metadata out.", options.OUTPUT)
    ] = False,
    redo: Annotated[
        bool,
        options.flag("--redo", "Replace streams in OUT that were made with other settings.", options.OUTPUT),
    ] = False,
    force: Annotated[
        bool,
        options.flag(
            "--force",
            "Overwrite files in OUT that lof did not write or that were changed since, and streams of other pictures.",
            options.OUTPUT,
        ),
    ] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    dry_run: Annotated[
        bool, options.flag("--dry-run", "Say what would be done; write nothing.", options.OUTPUT)
    ] = False,
    no_report: Annotated[
        bool, options.flag("--no-report", "Write no report.html, .csv and .jsonl.", options.OUTPUT)
    ] = False,
) -> None:
    """Find the images, do the job, show what came of it; the help stands in ``_HELP``."""

    from lof.cli import display
    from lof.codecs import codec_for
    from lof.errors import UsageError
    from lof.files.inputs import find
    from lof.files.storage import parse
    from lof.jobs import JobSettings, run_job
    from lof.jobs.effort import parse_duration
    from lof.jobs.own import without_outputs
    from lof.pictures.region import Regions
    from lof.pools import make_pool, threads_per_worker
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
            portable=not no_portable,
            never_bigger=never_bigger,
            regions=regions,
            target=target,
            total=total,
            memory=allowed,
            against=tuple(dict.fromkeys(name.strip().lower() for name in against.split(",") if name.strip())),
        )

    started = time.time()
    regions = Regions.parse(tuple(region or ()))
    allowed = None if memory is None else memory_of(memory)
    target = target_of(target_bytes, target_bpp, target_psnr, target_ms_ssim, target_psnr_inside)
    effort = 1.0 if target is None else TARGET_EFFORT
    if profile != AUTO and (budget or deadline):
        raise UsageError("--budget and --deadline go with --profile auto only")
    place = parse(out)
    plan = load_profile("fast" if profile == AUTO else profile)
    settings = settings_of(plan, codec_for(codec, plan.name))
    found = find(inputs, exclude=place)
    if not quiet:
        display.show_ignored(found)
    sources = without_outputs(found.sources, place)
    keep = None
    if profile == AUTO:
        if deadline is not None and ray is not None and jobs is None:
            raise UsageError("--deadline with --ray: say how many workers there will be with --jobs")
        limits = [None if text is None else parse_duration(text) / effort for text in (budget, deadline)]
        choice, keep = _chosen(
            codec,
            lambda name: settings_of(plan, name).load(),
            sources,
            place,
            limits,
            workers=jobs or 1,
            threads=threads or (threads_per_worker(jobs) if jobs and jobs > 1 else None),
            redo=redo,
            quiet=quiet,
        )
        settings = settings_of(choice.profile, choice.codec)
    if dry_run:
        display.show_plan(sources, place, settings, json=json, force=force)
        return
    pool = make_pool(jobs, threads=threads, ray=ray, num_gpus=0.0 if ray and device == "cpu" else num_gpus)
    batch = batch or (GPU_BATCH if _on_gpus(device, ray, num_gpus) else 1)
    with display.JobLines(len(sources), json=json, quiet=quiet) as shown:
        summary = run_job(
            sources,
            place,
            settings,
            pool=pool,
            batch=batch,
            redo=redo,
            force=force,
            until=None if deadline is None else started + parse_duration(deadline),
            on_event=shown if keep is None else _after(keep, shown),
        )
    reports = [] if no_report else _write_reports(summary, place, settings)
    if not (json or quiet):
        display.show_summary(summary, reports)
    raise typer.Exit(summary.exit_code)


def _chosen(
    codec: str | None,
    load: Callable[[str], Codec],
    sources: Sequence[Source],
    out: Location,
    limits: Sequence[float | None],
    *,
    workers: int,
    threads: int | None,
    redo: bool,
    quiet: bool,
) -> tuple[Choice, Callable[[], None]]:
    """What ``--profile auto`` stands for, with what keeps that for the next call."""
    from lof.jobs.batches import size_of
    from lof.jobs.cost import Cost, measured_cost
    from lof.jobs.effort import choose, keep_choice, kept_choice

    console = make_console(stderr=True, quiet=quiet)

    def cost_of(name: str) -> Cost:
        with console.status(f"measuring what {name} costs here…"):
            return measured_cost(load(name), threads)

    budget, deadline = limits
    asked = f"codec {codec}, budget {budget}, deadline {deadline}"
    choice = (None if redo else kept_choice(out, asked)) or choose(
        codec,
        cost_of,
        [size[0] * size[1] for source in sources if (size := size_of(source))],
        budget=budget,
        deadline=deadline,
        workers=workers,
    )
    console.print(choice.reason)
    return choice, partial(keep_choice, out, asked, choice)


def _after(keep: Callable[[], None], shown: OnEvent) -> OnEvent:
    """``shown`` after ``keep`` at the first event, when nothing was refused and no image is done yet."""
    waiting = [keep]

    def on_event(event: Event) -> None:
        while waiting:
            waiting.pop()()
        shown(event)

    return on_event


def _on_gpus(device: str, ray: str | None, num_gpus: float | None) -> bool:
    from lof.machine.devices import resolve_device

    if ray:  # this machine may have none where the cluster has some
        return bool(num_gpus) or device.startswith("cuda")
    return resolve_device(device).type == "cuda"


def _write_reports(summary: Summary, out: Location, settings: JobSettings) -> list[Location]:
    from lof.jobs.crops import crop_path, read_crop
    from lof.report import write_reports

    title = f"{settings.codec}, profile {settings.profile.name}"
    return write_reports(
        summary.records, out, title=title, crops=lambda record: read_crop(crop_path(out, record["source"]))
    )
