"""One gradient evaluation, timed against the same step written plainly."""

from __future__ import annotations

from typing import Any

import torch
from typer import Typer
from typer.testing import CliRunner

from lof.codecs import load_codec
from lof.profiles import parse_profile
from pipelines.step_time import PlainStep, main, time_steps


def test_the_plain_step_moves_latents_and_differentiates_by_its_own_weights_only() -> None:
    codec: Any = load_codec("tiny", device="cpu")
    plain = PlainStep(codec, torch.rand(1, 3, 64, 64))
    before = plain.y.detach().clone()
    plain()
    assert not torch.equal(plain.y, before)
    assert plain.net.g_s[0].weight.grad is not None
    assert codec.net.g_s[0].weight.grad is None
    assert not codec.net.g_s[0].weight.requires_grad


def test_both_kinds_of_step_are_timed_in_turn() -> None:
    codec = load_codec("tiny", device="cpu")
    profile = parse_profile({"name": "p", "stage": [{"kind": "relax", "evaluations": 9}]})
    plainly, own = time_steps(codec, torch.rand(1, 3, 64, 64), profile, rounds=4)
    assert len(plainly) == len(own) == 4
    assert min(*plainly, *own) > 0


def test_the_command_prints_both_times_and_their_ratio() -> None:
    app = Typer()
    app.command()(main)
    options = ["--codec", "tiny", "--width", "64", "--height", "64", "--rounds", "2"]
    printed = CliRunner().invoke(app, options, catch_exceptions=False).stdout
    assert "64×64" in printed
    assert "ratio:" in printed
