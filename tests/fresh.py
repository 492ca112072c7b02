"""Fresh processes: forked from a server that has imported PyTorch once, as the workers of pools are."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from typing import Any


def fresh(function: Callable[..., Any], *arguments: Any) -> ForkServerProcess:
    """A process that knows of this one only the arguments, its environment excepted; it has begun."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lof.api", "lof.codecs.network"])
    process = context.Process(target=_call, args=(dict(os.environ), function, arguments), daemon=True)
    process.start()
    return process


def _call(environment: dict[str, str], function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    import torch

    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(1)
    function(*arguments)


def silent_lof(*arguments: str) -> None:
    """The command line, for :func:`fresh`."""
    from lof.cli import main

    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        sys.stdout = sys.stderr = nowhere
        sys.argv[1:] = arguments
        main()
