"""What :mod:`pipelines.fuzz` reads: a reader for each kind of file, and good files to begin with."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import compressai  # noqa: F401 (so that no case pays for its import)
import numpy as np
import torch
from PIL import Image, features
from safetensors.torch import load

from lof.api import decode_stream, encode, repack
from lof.archive import Manifest, open_sources, restore, verify
from lof.archive.entries import chunks
from lof.codecs import codec_spec
from lof.containers import SUFFIXES, container_of, unpack
from lof.jobs.manifest import FOLDER, NAME, Row
from lof.jobs.manifest import Manifest as JobManifest
from lof.pictures.reading import read_picture
from lof.pools import ThisProcess
from lof.profiles import load_profile, profile_toml
from lof.study.load import load_study
from lof.training.recipe import load_recipe
from pipelines.fuzz_reader import Target
from pipelines.fuzz_spoil import (
    spoil_image,
    spoil_manifest,
    spoil_packed,
    spoil_stream,
    spoil_weights,
    spoil_words,
)

ROOT = Path(__file__).parents[1]
FIXTURES = ROOT / "tests" / "fixtures" / "v0.1"
ARCHIVE, ZOO = FIXTURES / "archive", FIXTURES / "weights"
MAX_PIXELS = 2**20
"""A small file may be a large picture, which rightly takes its time and memory; no such file is a case here."""


def read_stream(data: bytes, folder: Path) -> object:
    """Decode a stream of any container."""
    stream = unpack(data, "case", MAX_PIXELS)
    own = codec_spec(stream.codec).source == "zoo"
    picture, _ = decode_stream(stream, name="case", weights=ZOO if own else None)
    return picture.pixels.shape


def stream_seeds() -> dict[str, bytes]:
    """One of each family in each container, as every later version must read them."""
    names = ("bmshj2018-*", "mbt2018-*", "tiny-*", "msp-tiny-*", "msp-base-mse-4*", "mean-scale-96-mse-4*")
    paths = [path for name in names for path in FIXTURES.glob(name) if path.suffix in SUFFIXES]
    pixels = np.array(Image.open(FIXTURES / "tiny-mse-4.lof.png").convert("RGB"))
    lapped = {f"lapped-{quality:g}": encode(pixels, codec="lapped", quality=quality) for quality in (1, 4.5)}
    tiny = {"lapped-tiny": encode(pixels, codec="lapped-tiny")}
    return {path.name: path.read_bytes() for path in paths} | lapped | tiny | jpeg_seeds()


def jpeg_seeds() -> dict[str, bytes]:
    """Streams that are JPEG files: with lof's comment and metadata, without, and with descriptors."""
    rich = Image.open(FIXTURES / "photos" / "b.jpg")
    steered = encode(rich, codec="jpeg-descriptors-tiny")
    foreign = (FIXTURES / "photos" / "b.jpg").read_bytes()
    return {"jpeg": encode(rich, codec="jpeg"), "foreign": foreign, "descriptors": steered}


def read_repack(data: bytes, folder: Path) -> object:
    """Pack a JPEG anew."""
    unpack(data, "case", MAX_PIXELS)
    return len(repack(data, name="case")) <= len(data)


def repack_seeds() -> dict[str, bytes]:
    """JPEG files of every kind that is at hand."""
    return {name: data for name, data in picture_seeds().items() if data[:2] == b"\xff\xd8"} | jpeg_seeds()


def read_container(data: bytes, folder: Path) -> object:
    """What a file of any container says, and the same file once more."""
    stream = unpack(data, "case", MAX_PIXELS)
    return len(container_of(data).pack(stream)), sorted(stream.boxes)


def container_seeds() -> dict[str, bytes]:
    """All streams of the fixtures, and one with every kind of box."""
    paths = [path for path in FIXTURES.iterdir() if path.suffix in SUFFIXES]
    plain = (FIXTURES / "tiny-mse-4.lof").read_bytes()
    boxes = {
        b"exif": b"Exif",
        b"iccp": b"profile" * 9,
        b"xmpd": b"<x/>",
        b"iptc": b"\x1c\2",
        b"reso": bytes(9),
    }
    full = container_of(plain).pack(replace(unpack(plain), boxes=boxes))
    return {path.name: path.read_bytes() for path in paths} | {"boxes": full} | jpeg_seeds()


def read_manifest(data: bytes, folder: Path) -> object:
    """List an archive with this manifest."""
    (folder / "manifest.sqlite").write_bytes(data)
    with Manifest(folder) as manifest:
        return manifest.totals(), manifest.failures(), manifest.sources(), len(list(manifest.rows()))


def read_archive(data: bytes, folder: Path) -> object:
    """Verify and restore an archive with this manifest."""
    dst = folder / "archive"
    shutil.copytree(ARCHIVE, dst)
    (dst / "manifest.sqlite").write_bytes(data)
    found = verify(dst, ThisProcess())
    return len(found.findings), len(restore(dst, folder / "out", ThisProcess()).errors)


def read_job(data: bytes, folder: Path) -> object:
    """Look up the rows of a job with this manifest."""
    (folder / FOLDER).mkdir()
    (folder / FOLDER / NAME).write_bytes(data)
    with JobManifest(folder) as manifest:
        return manifest.get("a.png"), manifest.get("b.png")


def job_seeds() -> dict[str, bytes]:
    """A manifest of two rows."""
    with tempfile.TemporaryDirectory() as place:
        with JobManifest(Path(place)) as manifest:
            manifest.put(Row("a.png", 3, 4, "{}", "done", {"bpp": 0.5}, "00", "a.png.lof", 5, "11"))
            manifest.put(Row("b.png", 3, 4, "{}", "failed", {"error": "b.png: is damaged"}))
        return {"job": Path(place, FOLDER, NAME).read_bytes()}


def read_packed(data: bytes, folder: Path) -> object:
    """List and read a tar or zip as a source of an archive."""
    path = folder / f"case.{'zip' if data[:2] == b'PK' else 'tar'}"
    path.write_bytes(data)
    (source,) = open_sources([str(path)], folder / "archive")
    sizes = []
    for entry in source.entries():
        if entry.open is not None:
            with entry.open() as reader:
                sizes.append(sum(map(len, chunks(reader))))
    return len(sizes)


def packed_seeds() -> dict[str, bytes]:
    """Tar and zip files, plain and compressed, with links."""
    seeds: dict[str, bytes] = {}
    for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=kind) as tar:
            tar.add(FIXTURES / "photos" / "notes.txt", "f/notes.txt")
            tar.add(FIXTURES / "photos" / "link", "f/link")
            long = tarfile.TarInfo("f/" + "n" * 120)
            long.size = 600
            tar.addfile(long, io.BytesIO(bytes(600)))
            hard = tarfile.TarInfo("f/again")
            hard.type, hard.linkname = tarfile.LNKTYPE, "f/notes.txt"
            tar.addfile(hard)
        plain = buffer.getvalue()
        for name, pack in (
            ("tar", bytes),
            ("gz", gzip.compress),
            ("bz2", bz2.compress),
            ("xz", lzma.compress),
        ):
            seeds[f"{name}-{kind}"] = pack(plain)
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", method) as zipped:
            zipped.writestr("f/notes.txt", "notes" * 50)
            zipped.writestr("f/", "")
        seeds[f"zip-{method}"] = buffer.getvalue()
    return seeds


def read_study(data: bytes, folder: Path) -> object:
    """Load a study."""
    (folder / "case.toml").write_bytes(data)
    return load_study(folder / "case.toml").name


def read_recipe(data: bytes, folder: Path) -> object:
    """Load a recipe of a training."""
    (folder / "case.toml").write_bytes(data)
    return load_recipe(folder / "case.toml").name


def toml_seeds(pattern: str) -> dict[str, bytes]:
    """The files of the repository that fit."""
    return {path.name: path.read_bytes() for path in ROOT.glob(pattern)}


def read_profile(data: bytes, folder: Path) -> object:
    """Load a profile and print it."""
    path = folder / "case.toml"
    path.write_bytes(data)
    return bool(profile_toml(load_profile(path)))


def read_weights(data: bytes, folder: Path) -> object:
    """Load weights, then write and read a picture with them."""
    names = {
        b"prior.block32": "lapped-tiny",
        b"prior.": "msp-tiny",
        b"h_s.": "mbt2018-mean",
        b"": "bmshj2018-factorized",
    }
    name = next(name for part, name in names.items() if part in data[:20000])
    spec = codec_spec(name)
    quality = "" if name == "lapped-tiny" else "-4" if name == "msp-tiny" else "-1"
    suffix = ".pth" if data[:2] == b"PK" else ".safetensors"
    (folder / f"{name}{quality}{suffix}").write_bytes(data)
    codec = spec.load(spec.default_quality if not quality else int(quality[1:]), weights=folder, device="cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    return codec.decompress(unpack(encode(pixels, codec=codec)).strings, 40, 50).image.shape


def weights_seeds() -> dict[str, bytes]:
    """Small ones of four families, and one as PyTorch saves it."""
    codecs = ROOT / "lof" / "codecs"
    tiny = codecs / "data" / "msp-tiny-4.safetensors"
    lapped = codecs / "lapped" / "data" / "lapped-tiny.safetensors"
    small = [ZOO / "bmshj2018-factorized-1.safetensors", ZOO / "mbt2018-mean-1.safetensors"]
    seeds = {path.name: path.read_bytes() for path in (tiny, lapped, *small)}
    buffer = io.BytesIO()
    torch.save(load(small[0].read_bytes()), buffer)
    return seeds | {"bmshj2018-factorized-1.pth": buffer.getvalue()}


def read_image(data: bytes, folder: Path) -> object:
    """Read a picture of whatever format."""
    return read_picture("case", data, max_pixels=MAX_PIXELS).pixels.shape


def picture_seeds() -> dict[str, bytes]:
    """One picture in the formats that Pillow writes here, with an ICC profile and EXIF."""
    ramp = np.add.outer(np.arange(40), np.arange(33)) * 3 % 256
    image = Image.fromarray(np.stack([ramp, 255 - ramp, ramp // 2], 2).astype(np.uint8))
    exif = Image.Exif()
    exif[274], exif[305] = 6, "lof"
    seeds = {}
    for name, of in (("JPEG", image), ("PNG", image), ("TIFF", image), ("BMP", image), ("PPM", image)):
        seeds[name] = _saved(of, name, exif=exif.tobytes()) if name in ("JPEG", "PNG") else _saved(of, name)
    seeds |= {"GIF": _saved(image.convert("P"), "GIF"), "CMYK": _saved(image.convert("CMYK"), "JPEG")}
    seeds |= {
        "progressive": _saved(image, "JPEG", progressive=True),
        "LA": _saved(image.convert("LA"), "PNG"),
    }
    for name, feature in (("WEBP", "webp"), ("JPEG2000", "jpg_2000"), ("AVIF", "avif")):
        if features.check(feature):
            seeds[name] = _saved(image, name)
    return seeds


def _saved(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def profile_seeds() -> dict[str, bytes]:
    """The profiles that ship."""
    return {name: profile_toml(load_profile(name)).encode() for name in ("fast", "medium", "high", "max")}


def manifest_seeds() -> dict[str, bytes]:
    """That of the archive of the fixtures."""
    return {"manifest": (ARCHIVE / "manifest.sqlite").read_bytes()}


TARGETS: Mapping[str, Target] = {
    "container": Target(read_container, container_seeds, spoil_stream),
    "stream": Target(read_stream, stream_seeds, spoil_stream),
    "repack": Target(read_repack, repack_seeds, spoil_stream),
    "manifest": Target(read_manifest, manifest_seeds, spoil_manifest),
    "archive": Target(read_archive, manifest_seeds, spoil_manifest),
    "job": Target(read_job, job_seeds, spoil_manifest),
    "packed": Target(read_packed, packed_seeds, spoil_packed),
    "profile": Target(read_profile, profile_seeds, spoil_words),
    "study": Target(read_study, lambda: toml_seeds("profiles/studies/*.toml"), spoil_words),
    "recipe": Target(read_recipe, lambda: toml_seeds("lof/codecs/*/recipes/*.toml"), spoil_words),
    "weights": Target(read_weights, weights_seeds, spoil_weights),
    "picture": Target(read_image, picture_seeds, spoil_image),
}
