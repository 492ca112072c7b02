"""What every standard decoder that is a network needs: plain arithmetic, and a name for its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Float32 without autocast, as the standard decoder computes."""
    with torch.autocast("cpu", enabled=False):
        yield


def fingerprint(net: torch.nn.Module) -> bytes:
    """SHA-256 over the names, dtypes, shapes and values of a network's weights and tables; 32 bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(net.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.digest()
