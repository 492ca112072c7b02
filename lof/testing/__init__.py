"""The codec contract as checks that run on any codec: what lof's own codecs are held to.

>>> from lof import load_codec
>>> from lof.testing import check_codec
>>> check_codec(load_codec("my-codec"))  # doctest: +SKIP

With pytest, each check is a test of its own::

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_contract(check):
        check(load_codec("my-codec"), picture())
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from numbers import Real

import numpy as np
import torch
from torch import Tensor

from lof.api import encode
from lof.codecs import QUALITY_UNIT, Codec, hard_rounding
from lof.codecs.checks import strings_of
from lof.containers import unpack
from lof.containers.digest import symbols_digest
from lof.encoding import arrays_of
from lof.errors import LofError, StreamError, UsageError
from lof.results import Pixels, checked_lambda
from lof.testing.given import Check as Check
from lof.testing.given import analysed, batch, coded_by, decoded_by, told

Symbols = Mapping[str, Tensor]

_KINDS = {
    "name": (str, "a text"),
    "quality": (Real, "a number"),
    "lmbda": (Real | Tensor, "a number"),
    "stride": (int, "a whole number"),
    "fingerprint": (bytes, "bytes"),
    "device": (torch.device, "a torch.device"),
    "precision": (torch.dtype, "a torch.dtype"),
}

SIZES = ((128, 128), (1, 1), (65, 3), (100, 127))
"""Rows and columns of what is cut from the picture."""


def check_codec(codec: Codec, image: Pixels | None = None) -> None:
    """Run every check.

    Args:
        codec: loaded, on any device.
        image: (H, W, 3) uint8, at least 128×128; :func:`picture` if ``None``.

    Raises:
        AssertionError: the codec breaks the contract; the message says where.
    """
    for check in CHECKS:
        check(codec, picture() if image is None else image)


def picture(side: int = 160) -> Pixels:
    """A picture to check with, (side, side, 3) uint8: slopes, edges, texture and noise, the same every time."""
    random = np.random.default_rng(1)
    row, column = np.mgrid[:side, :side] / side
    waves = 0.5 + 0.2 * np.sin(9 * row) + 0.2 * np.sin(40 * column * row)
    disc = (row - 0.5) ** 2 + (column - 0.4) ** 2 < 0.06
    planes = [waves + 0.2 * disc, 0.8 * waves + 0.1 * column, 0.4 + 0.3 * row - 0.2 * disc]
    noisy = np.stack(planes, 2) + random.normal(0, 0.02, (side, side, 3))
    return np.ascontiguousarray((255 * noisy.clip(0, 1)).astype(np.uint8))


@told
def check_attributes(codec: Codec, image: Pixels) -> None:
    """Names, quality and fingerprint are what files and reports can state, and the rest is of the right kind."""
    for name in ("latents", "synthesised", "stride", "name", "quality", "metric", "lmbda"):
        assert hasattr(codec, name), f"{name}: is missing"
    for name, (kind, words) in _KINDS.items():
        found = getattr(codec, name)
        assert isinstance(found, kind), f"{name} {found!r}: must be {words}"
    assert codec.latents, "latents: name at least one tensor"
    assert codec.synthesised, "synthesised: name at least one tensor"
    assert set(codec.synthesised) <= set(codec.latents), "synthesised: holds a name that latents lacks"
    assert set(codec.held) <= set(codec.latents), "held: holds a name that latents lacks"
    assert not set(codec.held) & set(codec.synthesised), "held: holds a name that synthesised has too"
    assert len(set(codec.latents)) == len(codec.latents), "latents: each name once"
    for name in codec.latents:
        assert re.fullmatch(r"[ -~]{1,255}", name), f"latents: {name!r} is not 1 to 255 ASCII characters"
    assert codec.quality * QUALITY_UNIT % 1 == 0, f"quality {codec.quality}: no multiple of 1/{QUALITY_UNIT}"
    assert codec.metric in ("mse", "ms-ssim"), f"metric {codec.metric!r}: neither mse nor ms-ssim"
    try:
        checked_lambda(codec.lmbda)
    except UsageError as error:
        raise AssertionError(f"lmbda: {error}") from error
    assert codec.stride > 0, f"stride {codec.stride}: not above 0"
    assert isinstance(codec.for_size(*image.shape[:2]), Codec), "for_size: gives no codec"
    assert len(codec.fingerprint) == 32, "fingerprint: not the 32 bytes of a SHA-256"
    assert codec.memory_needed(256, 256) > 0, "memory_needed: not above 0"
    assert codec.decoding_memory(256, 256) > 0, "decoding_memory: not above 0"


@told
def check_latents_are_finite_and_without_a_history(codec: Codec, image: Pixels) -> None:
    """What ``analyse`` gives of a picture, and of flat ones, can be rounded."""
    flat = [np.full_like(image[:64, :64], level) for level in (0, 128, 255)]
    for pixels, what in ((image, "a picture"), *((one, "a flat picture") for one in flat)):
        for name, tensor in analysed(codec, pixels).items():
            assert not tensor.requires_grad, "analyse: run it under torch.no_grad()"
            assert tensor.dtype == torch.float32, (
                f"analyse: latents of {name} are {tensor.dtype}, not float32"
            )
            assert bool(tensor.isfinite().all()), f"analyse: latents of {name} are not finite for {what}"


@told
def check_files_are_read(codec: Codec, image: Pixels) -> None:
    """What :func:`lof.encode` writes at every size, and of a flat picture, is read by the codec for its size."""
    flat = np.full_like(image[:64, :64], 128)
    for part in (*(image[:height, :width] for height, width in SIZES), flat):
        height, width = part.shape[:2]
        try:
            stream = unpack(encode(part, codec=codec))
            sized = codec.for_size(height, width)
            found = arrays_of(sized, decoded_by(sized, stream.strings, height, width).symbols)
        except LofError as error:
            raise AssertionError(f"a file of a {width}×{height} image: {error}") from error
        same = not stream.digest or symbols_digest(found) == stream.digest
        assert same, f"decompress: other symbols than a file has ({width}×{height})"


@told
def check_decoding_is_the_exact_synthesis(codec: Codec, image: Pixels) -> None:
    """Invariants 1, 2 and 5: strings decode to the exact synthesis of their symbols, at every size."""
    for height, width in SIZES:
        part = image[:height, :width]
        sized = codec.for_size(height, width)
        with torch.no_grad():
            coded = coded_by(sized, analysed(sized, part), hard_rounding, exact=True)
            values = {name: c.value for name, c in coded.items()}
            exact = sized.crop(sized.synthesise(values, exact=True), height, width)[0].clamp(0, 1)
        symbols = {name: torch.round(c.residual).to(torch.int32) for name, c in coded.items()}
        decoded = decoded_by(sized, sized.compress(symbols), height, width)
        size = f"{width}×{height}"
        assert decoded.image.shape == (3, height, width), f"decompress: a {size} image has another shape"
        assert torch.equal(decoded.image, exact.cpu()), (
            f"decompress: a {size} image is not the exact synthesis"
        )
        for name in codec.latents:
            same = torch.equal(decoded.symbols[name].to(torch.int32), symbols[name].cpu())
            assert same, f"decompress: other symbols of {name} than were written ({size})"
            near = torch.allclose(decoded.values[name], values[name].cpu(), atol=1e-3)
            assert near, f"decompress: other values of {name} than code gives ({size})"


@told
def check_bits_are_those_of_the_strings(codec: Codec, image: Pixels) -> None:
    """Invariant 3, and what ``rate`` says."""
    with torch.no_grad():
        coded = coded_by(codec, analysed(codec, image), hard_rounding, exact=True)
        estimated = sum(float(c.bits.sum()) for c in coded.values())
    symbols = _rounded(codec, image)
    written = 8 * sum(map(len, codec.compress(symbols)))
    assert written > 0, "compress: no bytes"
    if codec.exact_bits:
        close = abs(estimated - written) < 0.01 * written + 512
        assert close, f"bits_of: {estimated:.0f} bits where the strings have {written}; is exact_bits true?"
    told = float(codec.rate(symbols)[0])
    assert abs(told - written) <= 0.01 * written + 512, (
        f"rate: {told:.0f} bits where the strings have {written}"
    )


@told
def check_strings_are_repeatable(codec: Codec, image: Pixels) -> None:
    """Invariant 4: equal symbols give equal strings, with one thread and with two."""
    symbols = _rounded(codec, image)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        once = codec.compress(symbols)
        torch.set_num_threads(2)
        again = codec.compress(symbols)
        read = decoded_by(codec, once, *image.shape[:2]).symbols
    finally:
        torch.set_num_threads(threads)
    assert once == again, "compress: other strings with two threads than with one"
    for name in codec.latents:
        same = torch.equal(read[name].to(torch.int32), symbols[name].cpu())
        assert same, f"decompress: other symbols of {name} with two threads"


@told
def check_unlikely_elements_cost_more(codec: Codec, image: Pixels) -> None:
    """No element costs less than nothing, and all cost more far from what is expected."""
    with torch.no_grad():
        coded = coded_by(codec, analysed(codec, image), hard_rounding)
        for name, one in coded.items():
            assert float(one.bits.min()) >= 0, f"bits_of: elements of {name} with less than 0 bits"
            whole = one.bits_of_whole(one.residual)
            assert torch.allclose(whole, one.bits, rtol=0.02, atol=0.1), (
                f"whole: other bits of {name} than bits_of"
            )
            here = torch.round(one.residual)
            rises = torch.stack(one.rises_of_whole(here))
            levels = torch.stack([one.bits_of_whole(here + step) for step in (-1, 0, 1)])
            assert torch.allclose(rises, levels.diff(dim=0), rtol=0.02, atol=0.1), (
                f"rises: other bits of {name} than between whole residuals"
            )
            more = one.bits_of(one.residual + 30).sum() > one.bits.sum()
            assert bool(more), f"bits_of: symbols of {name} that are 30 larger cost no more"


@told
def check_outliers(codec: Codec, image: Pixels) -> None:
    """The largest symbols that the codec says it writes, or ±20,000, survive writing and reading."""
    symbols, largest = _rounded(codec, image), codec.symbol_limit or 20_000
    for name in codec.synthesised:
        flat = symbols[name].view(-1)
        flat[:2] = codec.rounded(name, torch.tensor([-1.0, 1.0]).double() * largest).int()[: len(flat)]
    decoded = decoded_by(codec, strings_of(codec, symbols), *image.shape[:2])
    assert bool(decoded.image.isfinite().all()), "decompress: an image that is not finite"
    for name in codec.latents:
        same = torch.equal(decoded.symbols[name].to(torch.int32), symbols[name].cpu())
        assert same, f"decompress: symbols of {name} of ±{largest} are not read back; see symbol_limit"


@told
def check_widened_symbols_can_be_written(codec: Codec, image: Pixels) -> None:
    """``widen`` gives integers of the same shapes, and the very same ones where the codec is portable."""
    symbols = _rounded(codec, image)
    wide = codec.widen(symbols)
    for name in codec.latents:
        assert not wide[name].is_floating_point(), f"widen: symbols of {name} that are no integers"
        assert wide[name].shape == symbols[name].shape, f"widen: symbols of {name} of another shape"
        same = torch.equal(wide[name], symbols[name])
        assert same or not codec.portable, f"widen: changes symbols of {name}, though the codec is portable"
    assert codec.compress(wide), "compress: no strings of widened symbols"


@told
def check_gradients_reach_every_latent(codec: Codec, image: Pixels) -> None:
    """A search can move every latent tensor but those that are held."""
    found = analysed(codec, image)
    latents = {name: tensor.detach().clone().requires_grad_() for name, tensor in found.items()}
    coded = coded_by(codec, latents, lambda name, residual: residual - 0.4 * (name in codec.held))
    decoded = codec.synthesise({name: c.value for name, c in coded.items()})
    (torch.stack([c.bits.sum() for c in coded.values()]).sum() + decoded.square().sum()).backward()
    for name, tensor in latents.items():
        assert tensor.grad is not None, f"no gradient reaches {name}"
        assert bool(tensor.grad.isfinite().all()), f"the gradient of {name} is not finite"
        moves = float(tensor.grad.abs().sum()) > 0
        assert moves or name in codec.held, f"the gradient of {name} is 0 everywhere"
        assert not (moves and name in codec.held), f"held: {name} has a gradient"


@told
def check_residuals_are_what_was_quantised(codec: Codec, image: Pixels) -> None:
    """``Coded.residual`` holds what ``quantize`` gave, each element in one place, in whatever order it was asked."""
    asked = dict.fromkeys(codec.latents, 0)

    def quantize(name: str, residual: Tensor) -> Tensor:
        """Each element told from all others."""
        first, asked[name] = asked[name], asked[name] + residual.numel()
        return (torch.arange(first, asked[name], device=residual.device) / 2**20).reshape(residual.shape)

    with torch.no_grad():
        coded = coded_by(codec, analysed(codec, image), quantize)
    for name, one in coded.items():
        numbers = one.residual.flatten() * 2**20
        whole = torch.round(numbers)
        told = torch.allclose(numbers, whole, rtol=0, atol=0.25) and float(whole.max()) < asked[name]
        same = told and len(whole.unique()) == len(whole)
        assert same, f"residual: that of {name} is not what quantize gave"


@told
def check_latents_and_values_are_in_steps_of_the_quantiser(codec: Codec, image: Pixels) -> None:
    """Where nothing is rounded the values are the latents, and one more in a residual is one more in its value."""
    latents = analysed(codec, image)
    with torch.no_grad():
        coded = coded_by(codec, latents, lambda name, residual: residual)
        more = coded_by(codec, latents, lambda name, residual: residual + (name not in codec.held))
    remedy = "latents and values are in steps of the quantiser; put the step into synthesise"
    for name, one in coded.items():
        same = torch.allclose(one.value, latents[name].to(one.value), rtol=1e-3, atol=0.01)
        assert same, f"value: that of {name} is not the latent, though nothing was rounded; {remedy}"
        rise, told = more[name].value - one.value, more[name].residual != one.residual
        whole = (rise - 1).abs() <= 0.01 + 1e-3 * one.value.abs()
        assert bool((whole | ~told).all()), (
            f"value: that of {name} does not rise by 1 with its residual; {remedy}"
        )


@told
def check_parts_are_as_in_the_whole(codec: Codec, image: Pixels) -> None:
    """``locality``: beyond ``reach`` of its cut, a part that begins on the grid is as in the whole."""
    if codec.locality is None:
        return
    grid = math.lcm(codec.locality.grid, codec.stride)
    length = 2 * grid - (-codec.locality.reach // grid) * grid
    tiles = -(-grid // image.shape[0]), -(-length // image.shape[1]), 1
    pixels = batch(np.tile(image, tiles)[:grid, :length])
    whole, part = codec.analyse(pixels), codec.analyse(pixels[..., grid:])
    places = {}  # in one step of the grid
    for name, tensor in whole.items():
        stride = length / tensor.shape[-1]
        assert grid % stride == 0, (
            f"locality: grid is no multiple of the {stride:g} pixels of a place of {name}"
        )
        places[name] = int(grid / stride)
    cut = {name: tensor[..., places[name] :] for name, tensor in whole.items()}
    with torch.no_grad():
        coded, of_cut = (coded_by(codec, each, lambda name, residual: residual) for each in (whole, cut))
    for name, far in places.items():
        pairs = {
            "analyse": (whole[name], part[name]),
            "code": (coded[name].residual, of_cut[name].residual),
        }
        for verb, (one, other) in pairs.items():
            apart = float((one[..., -far:] - other[..., -far:]).abs().mean())
            assert apart < 0.01, f"locality: {verb} gives another {name} in a part than in the whole"


@told
def check_pixels_come_from_synthesised(codec: Codec, image: Pixels) -> None:
    """The image depends on every tensor named in ``synthesised``, and on no other but those that are held."""
    with torch.no_grad():
        coded = coded_by(codec, analysed(codec, image), hard_rounding)
    values = {name: c.value.detach().clone().requires_grad_() for name, c in coded.items()}
    decoded = codec.synthesise(values)
    gradients = torch.autograd.grad(decoded.square().sum(), list(values.values()), allow_unused=True)
    for name, gradient in zip(values, gradients, strict=True):
        reaches = gradient is not None and float(gradient.abs().sum()) > 0
        assert reaches == (name in codec.synthesised), (
            f"synthesised: {name} {'reaches' if reaches else 'does not reach'} the pixels"
        )


@told
def check_images_of_a_batch_are_independent(codec: Codec, image: Pixels) -> None:
    """Every image of a batch is priced as if it were alone."""
    two = torch.cat([batch(image[:64, :64]), batch(image[-64:, -64:])])
    with torch.no_grad():
        both = coded_by(codec, codec.analyse(codec.pad(two)), hard_rounding)
        alone = coded_by(codec, codec.analyse(codec.pad(two[1:])), hard_rounding)
    for name, one in alone.items():
        same = torch.allclose(both[name].bits[1:].sum(), one.bits.sum(), rtol=1e-2)
        assert same, f"code: {name} of an image costs other bits beside another image"


@told
def check_other_strings_are_refused(codec: Codec, image: Pixels) -> None:
    """Strings of another kind end in a :class:`StreamError`, shortened ones in that or in a picture."""
    strings = codec.compress(_rounded(codec, image))
    for damage in ([], [*strings, b"more"], [b""] * len(strings)):
        try:
            codec.decompress(damage, *image.shape[:2])
        except StreamError:
            continue
        lengths = [len(string) for string in damage]
        raise AssertionError(f"decompress: takes strings of {lengths} bytes, which are no stream's")
    for keep in (8, 12, 64):
        cut = [string[: max(8, min(len(string), keep))] for string in strings]
        try:
            decoded = codec.decompress(cut, *image.shape[:2]).image
        except StreamError:
            continue
        assert decoded.shape == (3, *image.shape[:2]), "decompress: a shortened stream gives another size"


CHECKS: tuple[Check, ...] = (
    check_attributes,
    check_latents_are_finite_and_without_a_history,
    check_files_are_read,
    check_decoding_is_the_exact_synthesis,
    check_bits_are_those_of_the_strings,
    check_strings_are_repeatable,
    check_unlikely_elements_cost_more,
    check_outliers,
    check_widened_symbols_can_be_written,
    check_gradients_reach_every_latent,
    check_residuals_are_what_was_quantised,
    check_latents_and_values_are_in_steps_of_the_quantiser,
    check_parts_are_as_in_the_whole,
    check_pixels_come_from_synthesised,
    check_images_of_a_batch_are_independent,
    check_other_strings_are_refused,
)
"""All checks, each a function of a codec and a picture that raises AssertionError."""


def _rounded(codec: Codec, image: Pixels) -> dict[str, Tensor]:
    """The plain encoding's symbols, (1, C, h, w) int32."""
    with torch.no_grad():
        coded = coded_by(codec, analysed(codec, image), hard_rounding, exact=True)
    return {name: torch.round(c.residual).to(torch.int32).clone() for name, c in coded.items()}
