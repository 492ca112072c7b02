"""What every standard decoder that is a network needs: plain arithmetic, and a name for its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import torch

exact_arithmetic = partial(torch.autocast, "cpu", enabled=False)
"""Float32 without autocast, as the standard decoder computes."""


@contextmanager
def one_thread_each() -> Iterator[ThreadPoolExecutor]:
    """As many workers as torch has threads, in each of which torch has one."""
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(threads)  # what the workers have set is what new threads of others would get


def fingerprint(net: torch.nn.Module) -> bytes:
    """SHA-256 over the names, dtypes, shapes and values of a network's weights and tables; 32 bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(net.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.digest()
