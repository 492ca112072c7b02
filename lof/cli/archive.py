"""``lof archive``: whole trees as streams, to be checked, restored and improved."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from lof.cli import _options as options
from lof.cli import app
from lof.cli._targets import (
    MinMsSsim,
    MinPsnr,
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

archive = typer.Typer(
    name="archive",
    help="Recompress trees into streams and a manifest: create, status, verify, restore, improve, rebuild, checksums.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
app.add_typer(archive)

Dst = Annotated[Path, options.folder("DST", "Folder of the archive.")]
Json = Annotated[
    bool,
    options.flag(
        "--json",
        "Print to stdout one JSON object for each file that was worked on, a summary last, and nothing else.",
    ),
]
MaxRatio = Annotated[
    float,
    typer.Option(
        min=1, help="A zip member or a tar may inflate to so many times its size; more is a failure."
    ),
]

_CREATE = (
    "Recompress folders, tar and zip files into the archive DST; the sources are only read.\n\n"
    "Images become streams. What is no image, would not get smaller or misses a floor is stored byte for byte. "
    "EXIF, ICC profiles, times, permission bits, empty folders and links travel. Owners, access lists, extended "
    "attributes, and the setuid and setgid bits do not; hard links of a folder become separate files.\n\n"
    "[bold]A stream is not its source[/]: `restore` gives the decoded image, not the original bytes. lof never "
    "deletes a source; whether you do is up to you, after `lof archive verify`. Every CPU reads all "
    "streams but those of mean-scale-96, mbt2018, mbt2018-mean and bmshj2018-hyperprior, of which another kind of CPU "
    "may read noise: run `lof archive verify` on it.\n\n"
    "If it was stopped or killed, the same command continues. Later the same command adds what is new or has "
    "changed. Files that are gone from a source stay in the archive. Folders called .lof, where lof keeps its own "
    "notes, are left out.\n\n"
    "A file that cannot be read is a failure. `status`, `verify` and `restore` name it until a later `create` reads "
    "it, does not find it any more, or leaves it out by --exclude."
)


@archive.command("create", help=_CREATE)
def create(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SRC", help="Folders, .tar (.gz, .bz2, .xz), .zip.", show_default=False),
    ],
    dst: Dst,
    *,
    codec: Annotated[
        str,
        typer.Option(help="See `lof codecs`."),
    ] = DEFAULT_CODEC,
    quality: options.Quality = None,
    metric: options.Metric = "mse",
    profile: options.Profile = "medium",
    lmbda: options.Lambda = None,
    target_bytes: TargetBytes = None,
    target_bpp: TargetBpp = None,
    target_psnr: TargetPsnr = None,
    target_psnr_inside: TargetPsnrInside = None,
    target_ms_ssim: TargetMsSsim = None,
    total: Total = False,
    region: options.Region = None,
    memory: options.Memory = None,
    seed: options.Seed = 0,
    weights: options.Weights = None,
    min_psnr: MinPsnr = None,
    min_ms_ssim: MinMsSsim = None,
    redo: Annotated[
        bool,
        options.flag(
            "--redo",
            "Search streams of other settings again. With --total, one new image has all of them searched again.",
        ),
    ] = False,
    recheck: Annotated[
        bool, options.flag("--recheck", "Read every file of the archive, and replace damaged ones.")
    ] = False,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GLOB",
            help="Leave out files and folders of that name, or of that path below SRC if there is a / in it; "
            "may be repeated.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[bool, options.flag("--dry-run", "Say what would be done, and write nothing.")] = False,
    moved: Annotated[
        bool, options.flag("--moved", "SRC has moved: it is the source of that name in the archive.")
    ] = False,
    max_ratio: MaxRatio = 200,
    max_member: Annotated[
        int,
        typer.Option(min=1, help="A member of a tar or zip may have so many gigabytes; more is a failure."),
    ] = 64,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    jobs: options.Jobs = None,
    ray: options.Ray = None,
    num_gpus: options.NumGpus = None,
    json: Json = False,
) -> None:
    """Archive the sources; the help stands in ``_CREATE``."""
    from lof.archive import Floors, Limits, Policy, open_sources, size_of
    from lof.archive import create as create_archive
    from lof.archive import plan as plan_archive
    from lof.cli import archive_display
    from lof.codecs import codec_for, codec_spec
    from lof.jobs import JobSettings
    from lof.pictures.region import Regions
    from lof.pools import make_pool
    from lof.profiles import load_profile

    effort = load_profile(profile)
    settings = JobSettings(
        codec=codec_for(codec, effort.name),
        profile=effort,
        quality=quality,
        metric=metric,
        weights=weights,
        lmbda=lmbda,
        seed=seed,
        device=device,
        precision=precision,
        regions=Regions.parse(tuple(region or ())),
        target=target_of(target_bytes, target_bpp, target_psnr, target_ms_ssim, target_psnr_inside),
        total=total,
        memory=None if memory is None else memory_of(memory),
    )
    limits = Limits(ratio=max_ratio, member=max_member * 10**9)
    found = open_sources(sources, dst, limits, exclude or ())
    floors, policy = Floors(min_psnr, min_ms_ssim), Policy(redo=redo, recheck=recheck)
    if dry_run:
        planned = plan_archive(found, dst, settings, floors=floors, policy=policy, moved=moved)
        raise typer.Exit(1 if archive_display.show_plan(planned, json=json) else 0)
    pool = make_pool(jobs, ray=ray, num_gpus=num_gpus)
    with archive_display.ArchiveLines(None if json else size_of(found), json=json) as display:
        summary = create_archive(
            found,
            dst,
            settings,
            pool,
            floors=floors,
            policy=policy,
            moved=moved,
            on_event=display,
        )
    tied = None if codec_spec(settings.codec).portable else settings.codec
    end(summary, lambda summary: archive_display.show_created(summary, dst, tied), json=json)


@archive.command("status")
def status(
    dst: Dst,
    *,
    json: Annotated[
        bool, options.flag("--json", "Print one JSON object to stdout, and nothing else.")
    ] = False,
) -> None:
    """What the archive holds and what went wrong, from the manifest alone; also while others work in it."""
    from lof.archive import Manifest
    from lof.cli import archive_display

    with Manifest(dst) as manifest:
        archive_display.show_status(manifest, json=json)


@archive.command("checksums")
def checksums(
    dst: Dst,
    *,
    sources: Annotated[
        bool, options.flag("--sources", "Print those of the files as they were in their sources.")
    ] = False,
) -> None:
    """The SHA-256 of every file in the archive, as text: `sha256sum --check` in DST reads it, without lof."""
    from lof.archive import Manifest
    from lof.archive.names import to_bytes
    from lof.errors import OutputError

    if sys.stdout is None:
        raise OutputError("the standard output is closed; send the checksums to a file")
    with Manifest(dst) as manifest:
        for row in manifest.rows("kind = 'file'"):
            digest, name = (row.sha256, row.path) if sources else (row.object_sha256, row.object)
            if not digest:  # a failure
                continue
            # As sha256sum writes names that hold a line end.
            quoted = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
            mark = "\\" if quoted != name else ""
            sys.stdout.buffer.write(to_bytes(f"{mark}{digest}  {quoted}\n"))


_VERIFY = (
    "Decode every stream, read every stored file, and compare all with the manifest; nothing is written.\n\n"
    "It names each file that is damaged, missing, unexpected or unchecked (mostly because its weights are not at "
    "hand), and each that `create` failed at. The exit code is 1 if it names any. `lof archive create --recheck` "
    "replaces damaged files if the source is still there."
)


@archive.command("verify", help=_VERIFY)
def verify(
    dst: Dst,
    *,
    weights: options.Weights = None,
    jobs: options.Readers = None,
    ray: options.Ray = None,
    num_gpus: options.NumGpus = None,
    json: Json = False,
) -> None:
    """Check the archive; the help stands in ``_VERIFY``."""
    from lof.archive import verify as verify_archive
    from lof.cli import archive_display
    from lof.pools import make_pool

    files = _files(dst)
    pool = make_pool(jobs, ray=ray, num_gpus=num_gpus)
    with archive_display.ArchiveLines(files, json=json, by_files=True) as display:
        verdict = verify_archive(dst, pool, weights=weights, on_event=display)
    end(verdict, archive_display.show_verdict, json=json)


_RESTORE = (
    "Write the archived tree below OUT: streams as images with their ICC profile and EXIF, all else byte for byte; "
    "times, permission bits, folders and links as they were.\n\n"
    "With `--format png`, an image that was no PNG gets .png behind its name. With `--format source`, names and "
    "formats are those of the source; an image written as JPEG (quality 95) loses a little more.\n\n"
    "A file that is there and differs is replaced only with --overwrite. What cannot be written is listed, and all "
    "else is restored. Where this machine cannot have a name, --rename gives another. If it was stopped, the same "
    "command continues."
)


@archive.command("restore", help=_RESTORE)
def restore(
    dst: Dst,
    out: Annotated[Path, options.folder("OUT", "Folder for the restored tree.")],
    *,
    format: Annotated[str, typer.Option(help="Format of the restored images: png or source.")] = "png",
    overwrite: Annotated[
        bool, options.flag("--overwrite", "Replace files that are there and differ.")
    ] = False,
    all_links: Annotated[
        bool, options.flag("--all-links", "Also make links that lead out of the tree.")
    ] = False,
    rename: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OLD=NEW",
            help="Another path for a file, or for a folder with all in it; may be repeated.",
            show_default=False,
        ),
    ] = None,
    weights: options.Weights = None,
    jobs: options.Readers = None,
    ray: options.Ray = None,
    num_gpus: options.NumGpus = None,
    json: Json = False,
) -> None:
    """Restore the tree; the help stands in ``_RESTORE``."""
    from lof.archive import restore as restore_archive
    from lof.cli import archive_display
    from lof.errors import UsageError
    from lof.pools import make_pool

    if format not in ("png", "source"):
        raise UsageError(f"--format {format}: unknown; use png or source")
    pairs = [pair.partition("=") for pair in rename or ()]
    if not all(equals for _, equals, _ in pairs):
        raise UsageError("--rename: takes two paths of the archive, OLD=NEW")
    files = _files(dst)
    pool = make_pool(jobs, ray=ray, num_gpus=num_gpus)
    with archive_display.ArchiveLines(files, json=json, by_files=True) as display:
        restored = restore_archive(
            dst,
            out,
            pool,
            form="png" if format == "png" else "source",
            overwrite=overwrite,
            all_links=all_links,
            rename={old: new for old, _, new in pairs},
            weights=weights,
            on_event=display,
        )
    end(restored, archive_display.show_restored, json=json)


_IMPROVE = (
    "Search further, starting from the latents in the streams. A stream is replaced only by a better one that has "
    "been decoded. Codec, quality and λ of each stream stay.\n\n"
    "The originals are needed, unchanged: where they were when they were archived, or where --source says. A "
    "stream whose original is gone or has changed is left as it is."
)


@archive.command("improve", help=_IMPROVE)
def improve(
    dst: Dst,
    *,
    profile: options.Profile = "max",
    source: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SRC",
            help="Where a source is now; it must still have its name. May be repeated. "
            "Streams of sources that are not named stay as they are.",
            show_default="where they were",
        ),
    ] = None,
    seed: options.Seed = 0,
    weights: options.Weights = None,
    memory: options.Memory = None,
    max_ratio: MaxRatio = 200,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    jobs: options.Jobs = None,
    ray: options.Ray = None,
    num_gpus: options.NumGpus = None,
    json: Json = False,
) -> None:
    """Improve the streams; the help stands in ``_IMPROVE``."""
    from lof.archive import Limits, Manifest, open_sources
    from lof.archive import improve as improve_archive
    from lof.cli import archive_display
    from lof.jobs import JobSettings
    from lof.pools import make_pool
    from lof.profiles import load_profile

    with Manifest(dst) as manifest:
        known = [row.path for row in manifest.sources()]
        total = sum(total.files for total in manifest.totals() if total.state == "streamed")
    settings = JobSettings(
        codec=DEFAULT_CODEC,
        profile=load_profile(profile),
        weights=weights,
        memory=None if memory is None else memory_of(memory),
        seed=seed,
        device=device,
        precision=precision,
    )
    found = open_sources(
        source or [path for path in known if path and Path(path).exists()], dst, Limits(ratio=max_ratio)
    )
    pool = make_pool(jobs, ray=ray, num_gpus=num_gpus)
    with archive_display.ArchiveLines(total, json=json, by_files=True) as display:
        improved = improve_archive(dst, found, settings, pool, on_event=display)
    end(improved, archive_display.show_improved, json=json)


def _files(dst: Path) -> int:
    from lof.archive import Manifest

    with Manifest(dst) as manifest:
        return sum(total.files for total in manifest.totals() if total.kind == "file")


def end(outcome: Any, show: Callable[[Any], None], *, json: bool) -> NoReturn:
    """Show what a command came to, and exit with its code."""
    from lof.cli.archive_display import show_json

    if json:
        show_json(asdict(outcome))
    else:
        show(outcome)
    raise typer.Exit(outcome.exit_code)
