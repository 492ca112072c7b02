"""What frozen transforms make of all pictures, kept in memory and in a file."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lof.codecs.training import Kept
from lof.errors import TrainingError
from lof.files.atomic import write_atomically
from lof.training.checkpoint import read_torch_file
from lof.training.data import Pool


def analyse(pool: Pool, kept: Kept, precision: torch.dtype, cache: Path | None) -> Pool:
    """The latents of a pool's pictures, float16.

    Args:
        cache: read where it holds the latents of these pictures and weights, written otherwise.

    Raises:
        TrainingError: the cache cannot be read.
        OutputError: it cannot be written.
    """
    transform = kept.analyse.eval().to(memory_format=torch.channels_last)
    device = pool.images[0].device
    key = _key(pool, transform.state_dict(), precision)
    if cache is not None and cache.exists():
        held = _read(cache)
        if held["key"] == key:
            return Pool([y.to(device) for y in held["latents"]], pool.crop, [], kept.stride)
    latents = [_latents(kept, image, precision) for image in pool.images]
    if cache is not None:
        buffer = io.BytesIO()
        torch.save({"key": key, "latents": [y.cpu() for y in latents]}, buffer)
        write_atomically(cache, buffer.getvalue())
    return Pool(latents, pool.crop, [], kept.stride)


@torch.no_grad()
def _latents(kept: Kept, image: Tensor, precision: torch.dtype) -> Tensor:
    height, width = (size // kept.stride * kept.stride for size in image.shape[:2])
    x = image[:height, :width].permute(2, 0, 1)[None].float().div(255)
    with torch.autocast(x.device.type, precision, enabled=precision != torch.float32):
        y: Tensor = kept.analyse(x)[0]
    return y.permute(1, 2, 0).half().contiguous()


def _key(pool: Pool, weights: Mapping[str, Tensor], precision: torch.dtype) -> str:
    digest = hashlib.sha256(f"rows, columns, channels {precision}".encode())
    for value in (*weights.values(), *pool.images):
        digest.update(f"{tuple(value.shape)}".encode())
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _read(path: Path) -> dict[str, Any]:
    content = read_torch_file(path)
    if not {"key", "latents"} <= content.keys():
        raise TrainingError(f"{path}: holds no latents; name another file")
    return content
