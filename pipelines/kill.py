"""Kill an archive job again and again, and prove that nothing was lost.

    python -m pipelines.kill run WORK --kills 50
    python -m pipelines.kill run WORK --kills 50 --ray

Archives WORK/photos (a folder) and WORK/scans.tar with two workers, while ``kill -9`` hits the driver, a worker or,
with ``--ray``, a node of the cluster that was started by a second ``ray start``, at random moments, starting up
included. Whenever the driver is gone it is started again. Then the job is left in peace to its end, and counted:

- nothing lost: every file of the sources is in the archive, from the right bytes;
- nothing half-written: ``verify`` decodes and finds everything well, no temporary file is there;
- nothing done twice without need: a search that was begun and not finished is one that a kill has hit.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table

from lof.archive import Event, Manifest, Settled, create, open_sources, verify
from lof.jobs import JobSettings
from lof.pools import Started, ThisProcess, make_pool
from lof.profiles import parse_profile

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

WORKERS = 2
_PATIENCE = 600.0  # seconds without any event after which the job counts as hanging
_PROFILE = {"name": "trivial", "stage": [{"kind": "relax", "evaluations": 20}]}


@app.command()
def run(
    work: Annotated[Path, typer.Argument(help="A new folder.")],
    kills: Annotated[int, typer.Option(min=0)] = 50,
    images: Annotated[int, typer.Option(min=2, help="In both sources together.")] = 260,
    seed: int = 0,
    ray: Annotated[bool, typer.Option("--ray/--no-ray", help="Work on a Ray cluster of two nodes.")] = False,
) -> None:
    """Make sources, kill, check, and print a table; exit code 1 if anything is wrong."""
    work = work.absolute()
    work.mkdir(parents=True)
    chance = random.Random(seed)
    make_sources(work, images, chance)
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(_cluster(work)) if ray else None
        job = Job(work, cluster)
        stack.callback(job.stop)
        hits: Counter[str] = Counter()
        started = time.monotonic()
        while sum(hits.values()) < kills and not job.is_done():
            hits[job.hit(chance)] += 1
            hits.pop("nothing", None)
        job.finish()
    ok = report(work, job, hits, time.monotonic() - started)
    if sum(hits.values()) < kills:
        print(f"the job was done after {sum(hits.values())} kills; use more --images", file=sys.stderr)
        ok = False
    raise typer.Exit(0 if ok else 1)


@app.command(hidden=True)
def drive(work: Path, address: str) -> None:
    """The job itself: what is killed. Every event goes to WORK/events.jsonl."""
    with (work / "events.jsonl").open("a") as log:

        def note(event: Event) -> None:
            match event:
                case Started(path, worker, _):
                    line: dict[str, Any] = {
                        "began": path,
                        "pid": int(worker.split()[-1]),
                        "driver": os.getpid(),
                    }
                case Settled(row):
                    line = {
                        "settled": row.path,
                        "state": row.state,
                        "error": row.error,
                        "driver": os.getpid(),
                    }
                case _:
                    return
            log.write(json.dumps(line) + "\n")
            log.flush()

        dst = work / "archive"
        settings = JobSettings("lapped-tiny", parse_profile(_PROFILE), device="cpu")
        pool = make_pool(WORKERS, ray=address or None, threads=1)
        sources = open_sources([str(work / "photos"), str(work / "scans.tar")], dst)
        raise typer.Exit(create(sources, dst, settings, pool, on_event=note).exit_code)


class Job:
    """The driver's process and what it has told."""

    def __init__(self, work: Path, cluster: Cluster | None) -> None:
        self.work, self.cluster, self.log = work, cluster, work / "events.jsonl"
        self.log.touch()
        self.drivers = 0
        self._start()

    def events(self) -> list[dict[str, Any]]:
        """All complete lines so far."""
        return [
            json.loads(line) for line in self.log.read_text().splitlines(keepends=True) if line.endswith("\n")
        ]

    def is_done(self) -> bool:
        """Whether the driver has ended by itself and without errors."""
        return self.process.poll() == 0

    def hit(self, chance: random.Random) -> str:
        """Wait a little, kill something, see to it that the job goes on; says what was hit."""
        if self.process.poll() is not None:
            if self.is_done():
                return "nothing"
            self._start()  # it gave up: a worker died while it started
        while_starting = chance.random() < 0.15
        before = len(self.events())
        if not while_starting:
            self._wait_for(before + chance.randint(1, 4))
        time.sleep(chance.random())
        if self.process.poll() is not None:
            return "nothing"
        kind = chance.choice(["driver", "worker", "worker", *(["node"] if self.cluster else [])])
        if kind == "worker" and not self._kill_worker(chance):
            kind = "driver"
        if kind == "node" and self.cluster:
            self.cluster.kill_node()
        if kind == "driver":
            self.process.kill()
            self.process.wait()
            self._start()
        return kind

    def finish(self) -> None:
        """Let the job run to its end; what was set aside since its workers were killed is tried again."""
        for _ in range(5):
            size = -1
            while self.process.poll() is None:
                grown = len(self.events())
                if grown == size:
                    raise SystemExit(f"nothing has happened for {_PATIENCE:.0f} seconds; see {self.work}")
                size = grown
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(_PATIENCE)
            if self.is_done():
                return
            self._start()
        raise SystemExit(f"the job does not end without errors; see {self.work}/driver.log")

    def stop(self) -> None:
        """End the driver if something here has failed."""
        if self.process.poll() is None:
            self.process.kill()

    def _start(self) -> None:
        self.drivers += 1
        address = self.cluster.address if self.cluster else ""
        command = [sys.executable, __file__, "drive", str(self.work), address]
        with (self.work / "driver.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def _wait_for(self, count: int) -> None:
        end = time.monotonic() + _PATIENCE
        while len(self.events()) < count and self.process.poll() is None:
            if time.monotonic() > end:
                raise SystemExit(f"nothing has happened for {_PATIENCE:.0f} seconds; see {self.work}")
            time.sleep(0.05)

    def _kill_worker(self, chance: random.Random) -> bool:
        pids = {e["pid"] for e in self.events() if "began" in e and e["driver"] == self.process.pid}
        alive = sorted(pid for pid in pids if psutil.pid_exists(pid) and pid != self.process.pid)
        if not alive:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(chance.choice(alive), signal.SIGKILL)
            return True
        return False


class Cluster:
    """A Ray head with room for one worker, and a second node that is killed and replaced."""

    def __init__(self, work: Path) -> None:
        self.work, self.port = work, 6400 + os.getpid() % 500
        self.address = f"127.0.0.1:{self.port}"
        # Newer versions of Ray let nobody in without a token; drivers inherit this one.
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
        self.head = self._start("--head", f"--port={self.port}", "--include-dashboard=false")
        self.node = self._start(f"--address={self.address}")

    def kill_node(self) -> None:
        """``kill -9`` for every process of the second node; then a new one is started."""
        self.end(self.node)
        self.node = self._start(f"--address={self.address}")

    def end(self, node: subprocess.Popen[bytes]) -> None:
        """``kill -9`` for a node's processes."""
        with contextlib.suppress(psutil.NoSuchProcess):
            family = [*psutil.Process(node.pid).children(recursive=True), psutil.Process(node.pid)]
            for process in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        node.wait()

    def _start(self, *options: str) -> subprocess.Popen[bytes]:
        command = [str(Path(sys.executable).with_name("ray")), "start", *options]
        command += [
            "--block",
            "--num-cpus=1",
            "--node-ip-address=127.0.0.1",
            f"--object-store-memory={2**27}",
            "--disable-usage-stats",
        ]
        with (self.work / "ray.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        if "--head" in options:
            end = time.monotonic() + _PATIENCE
            while b"Ray runtime started" not in (self.work / "ray.log").read_bytes():
                if process.poll() is not None or time.monotonic() > end:
                    raise SystemExit(f"Ray does not start; see {self.work}/ray.log")
                time.sleep(0.2)
        return process


@contextlib.contextmanager
def _cluster(work: Path) -> Iterator[Cluster]:
    cluster = Cluster(work)
    try:
        yield cluster
    finally:
        cluster.end(cluster.node)
        cluster.end(cluster.head)


def make_sources(work: Path, images: int, chance: random.Random) -> None:
    """Two thirds of the images in a folder, one third in a tar, each with some other files."""
    for number in range(images * 2 // 3):
        path = work / "photos" / f"{number % 7}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_picture(number))
        if number % 5 == 0:
            path.with_suffix(".txt").write_bytes(chance.randbytes(chance.randint(0, 200_000)))
    with tarfile.open(work / "scans.tar", "w") as file:
        for number in range(images * 2 // 3, images):
            for name, content in (
                (f"{number}.png", _picture(number)),
                (f"{number}.raw", chance.randbytes(999)),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))


def _picture(number: int) -> bytes:
    small = np.random.default_rng(number).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize((160, 128), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


def report(work: Path, job: Job, hits: Counter[str], seconds: float) -> bool:
    """Check the archive and print what came of it; whether all is well."""
    expected = _expected(work)
    with Manifest(work / "archive") as manifest:
        found = {row.path: row.sha256 for row in manifest.rows("kind = 'file'")}
        errors = manifest.count_failures()
        states = Counter(row.state for row in manifest.rows("kind = 'file'"))
    verdict = verify(work / "archive", ThisProcess())
    events = job.events()
    begun = sum("began" in event for event in events)
    settled = Counter(event["settled"] for event in events if event.get("state") == "streamed")
    # A driver that ends, killed or not, takes what its workers had in hand with it.
    allowed = WORKERS * (job.drivers - 1) + WORKERS * hits["node"] + hits["worker"]
    repeated = begun - states["streamed"]
    leftovers = list((work / "archive").rglob("*.tmp"))
    rows = [
        ("files of the sources", len(expected), True),
        ("of them lost or from other bytes", sum(found.get(p) != d for p, d in expected.items()), 0),
        ("rows too many", len(found.keys() - expected.keys()), 0),
        ("failures left", errors, 0),
        ("findings of verify", len(verdict.findings), 0),
        ("temporary files left", len(leftovers), 0),
        ("streams", states["streamed"], True),
        ("streams written twice", sum(count - 1 for count in settled.values()), 0),
        ("searches begun", begun, True),
        (f"of them without a stream (at most {allowed} by the kills)", repeated, range(allowed + 1)),
    ]
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    good = True
    for name, value, wanted in rows:
        well = wanted is True or value == wanted or (isinstance(wanted, range) and value in wanted)
        good = good and well
        table.add_row(name, str(value), "" if wanted is True else "[green]ok[/]" if well else "[red]WRONG[/]")
    console = Console(highlight=False)
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(hits.items()))
    console.print(f"{sum(hits.values())} kills ({kinds}), {job.drivers} drivers, {seconds:.0f} s")
    console.print(table)
    for finding in verdict.findings[:20]:
        console.print(f"{finding.wrong} {finding.name}: {finding.error}", markup=False)
    return good


def _expected(work: Path) -> dict[str, str]:
    found = {
        path.relative_to(work).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (work / "photos").rglob("*")
        if path.is_file()
    }
    with tarfile.open(work / "scans.tar") as file:
        for member in file:
            content = file.extractfile(member)
            assert content is not None
            found[f"scans/{member.name}"] = hashlib.sha256(content.read()).hexdigest()
    return found


if __name__ == "__main__":
    app()
