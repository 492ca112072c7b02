"""Where the search runs, and in which precision."""

from __future__ import annotations

import torch

from lof.errors import UsageError

PRECISIONS = ("auto", "bf16", "fp32")


def resolve_device(name: str = "auto") -> torch.device:
    """A device by name: ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        UsageError: the name is none of these, or this machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise UsageError(f"device {name!r}: unknown; use auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"device {name!r}: not supported; use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"device {name!r}: this machine has {torch.cuda.device_count()} CUDA devices; use cpu"
        )
    return device


def resolve_precision(name: str, device: torch.device) -> torch.dtype:
    """The dtype of the search's synthesis: ``auto`` takes bfloat16 where the hardware computes in it.

    Bytes and reported figures never depend on this: they are always computed in float32.

    Raises:
        UsageError: the name is not one of :data:`PRECISIONS`.
    """
    if name not in PRECISIONS:
        raise UsageError(f"precision {name!r}: unknown; use one of {', '.join(PRECISIONS)}")
    if name == "auto":
        name = "bf16" if _has_native_bf16(device) else "fp32"
    return torch.bfloat16 if name == "bf16" else torch.float32


def _has_native_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
