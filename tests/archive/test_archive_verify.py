"""Checks of archives: what is wrong is named, what only looks wrong is not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from archives import MORE, QUICK, archive, findings, rows, save
from PIL import Image
from safetensors.torch import save_file as save_weights

import lof
from lof.archive import Manifest, Policy, improve, open_sources, restore, verify
from lof.archive.store import Store
from lof.codecs import load_codec
from lof.containers import container, unpack
from lof.pools import ThisProcess


def change(dst: Path, path: str, **columns: str) -> None:
    with Manifest(dst, write=True) as manifest:
        row = manifest.get(path)
        assert row is not None
        manifest.put(replace(row, **columns))  # type: ignore[arg-type]


def test_verify_names_damaged_missing_and_unexpected_files_and_create_repairs(made: Path) -> None:
    dst = made / "dst"
    stream = dst / "streams/photos/a.png.lof"
    data = bytearray(stream.read_bytes())
    data[-6] ^= 1
    stream.write_bytes(data)
    (dst / "streams/photos/sub/b.jpg.lof").unlink()
    (dst / "stored/photos/notes.txt").write_text("w0rds\n")
    (dst / "stored/surprise").write_text("?")
    assert sorted(findings(dst)) == [
        ("damaged", "photos/a.png"),
        ("damaged", "photos/notes.txt"),
        ("missing", "photos/sub/b.jpg"),
        ("unexpected", "stored/surprise"),
    ]
    summary = archive(made / "photos", dst=dst, moved=True)
    assert (summary.streamed, summary.stored) == (1, 0)  # a look tells what is missing, not what is damaged
    summary = archive(made / "photos", dst=dst, policy=Policy(recheck=True))
    assert (summary.streamed, summary.stored) == (1, 1)
    assert findings(dst) == [("unexpected", "stored/surprise")]


def test_a_stream_with_other_symbols_is_damaged(made: Path) -> None:
    other = lof.encode(Image.open(made / "photos/sub/b.jpg"), codec="tiny")
    with Store(made / "dst") as store:
        row = store.manifest.get("photos/a.png")
        assert row is not None
        store.commit(row, store.stage([other]))
    (finding,) = verify(made / "dst", ThisProcess()).findings
    assert (finding.wrong, finding.name) == ("damaged", "photos/a.png")
    assert "other symbols" in finding.error
    restored = restore(made / "dst", made / "out", ThisProcess())
    assert [path for path, _ in restored.errors] == ["photos/a.png"]
    assert not (made / "out/photos/a.png").exists()


def test_other_pixels_of_the_same_symbols_are_a_remark_and_restored(made: Path) -> None:
    change(made / "dst", "photos/a.png", pixels_sha256="0" * 64)
    verdict = verify(made / "dst", ThisProcess())
    assert (verdict.findings, verdict.streams, verdict.rounded) == ([], 2, 1)
    restored = restore(made / "dst", made / "out", ThisProcess())
    assert (restored.errors, restored.images, restored.rounded) == ([], 2, 1)
    with Image.open(made / "out/photos/a.png") as image:
        decoded = lof.decode((made / "dst/streams/photos/a.png.lof").read_bytes())
        assert np.array_equal(np.asarray(image), decoded.pixels)


def test_another_number_of_threads_or_another_cpu_damages_nothing(tmp_path: Path) -> None:
    for seed in range(12):
        save(tmp_path / f"photos/{seed}.png", seed, (160, 128))
    torch.set_num_threads(2)
    assert archive(tmp_path / "photos", dst=tmp_path / "dst").streamed == 12
    torch.set_num_threads(1)
    assert findings(tmp_path / "dst") == []
    # PyTorch without the vector instructions of this CPU: another order of sums, as on an older one.
    older = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}
    call = [sys.executable, "-m", "lof", "archive", "verify", str(tmp_path / "dst"), "--jobs", "1", "--json"]
    done = subprocess.run(call, env=os.environ | older, capture_output=True, text=True, check=False)
    verdict = json.loads(done.stdout.splitlines()[-1])["summary"]
    assert (done.returncode, verdict["findings"], verdict["streams"]) == (0, [], 12)


def test_a_stream_of_other_weights_is_unchecked_and_not_called_damaged(made: Path) -> None:
    stream = (made / "dst/streams/photos/a.png.lof").read_bytes()
    parsed = unpack(stream)
    other = container("lof").pack(replace(parsed, fingerprint=b"\0\0\0\0"))
    with Store(made / "dst") as store:
        row = store.manifest.get("photos/a.png")
        assert row is not None
        store.commit(row, store.stage([other]))
    (finding,) = verify(made / "dst", ThisProcess()).findings
    assert (finding.wrong, finding.name) == ("unchecked", "photos/a.png")
    assert "other weights" in finding.error


@pytest.mark.parametrize(
    ("codec", "file", "bias"),
    [("tiny", "tiny-4", "g_s.0.bias"), ("lapped-tiny", "lapped-tiny", "transforms.do.bias")],
)
def test_an_archive_keeps_the_weights_that_its_streams_need(
    tmp_path: Path, codec: str, file: str, bias: str
) -> None:
    shipped = load_codec(codec, device="cpu")
    state = {name: tensor.clone() for name, tensor in shipped.state().items()}
    state[bias] += 0.1
    (tmp_path / "others").mkdir()
    save_weights(state, tmp_path / "others" / f"{file}.safetensors")
    save(tmp_path / "photos" / "a.png")
    dst = tmp_path / "dst"
    settings = replace(QUICK, codec=codec, weights=tmp_path / "others")
    archive(tmp_path / "photos", dst=dst, settings=settings)
    shutil.rmtree(tmp_path / "others")
    (row,) = [row for row in rows(dst).values() if row.state == "streamed"]
    assert row.fingerprint != shipped.fingerprint.hex()
    assert findings(dst) == []
    assert improve(dst, open_sources([str(tmp_path / "photos")], dst), MORE, ThisProcess()).replaced == 1
    assert findings(dst) == []
    shutil.rmtree(dst / "weights")
    assert [wrong for wrong, _ in findings(dst)] == ["unchecked"]
