"""JPEG with descriptors: the file stays a JPEG, the filter is lof's, and neither reading is worse than plain."""

from __future__ import annotations

import copy
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file

import lof
from lof import load_codec
from lof.codecs import trainable
from lof.codecs.descriptors.classes import CLASSES
from lof.codecs.jpeg.descriptors.codec import DescriptorCodec
from lof.codecs.jpeg.descriptors.config import CONFIGS
from lof.codecs.jpeg.descriptors.edsr import EdsrFilter
from lof.codecs.jpeg.descriptors.filter import Filter
from lof.codecs.jpeg.descriptors.network import DescriptorNetwork, level_of
from lof.codecs.jpeg.descriptors.patches import PatchFilter
from lof.codecs.jpeg.descriptors.pictures import picture_of, transposed, transposed_tables
from lof.codecs.jpeg.planes import plane_of
from lof.codecs.training import Aim
from lof.containers import container, unpack
from lof.errors import StreamError, TrainingError, WeightsError
from lof.results import Pixels
from lof.training import parse_recipe, train
from lof.training.checkpoint import load_checkpoint

NAME = "jpeg-descriptors-tiny"
QUALITY = 5
FINEST = 63
"""The highest frequency of a block."""
SIZES = ((1, 1), (1, 9), (7, 2), (12, 17))


@pytest.fixture(scope="module")
def face(photograph: NDArray[np.uint8]) -> Pixels:
    return np.ascontiguousarray(photograph[60:157, 160:274])


@pytest.fixture(scope="module")
def codec() -> DescriptorCodec:
    found = load_codec(NAME, 20, device="cpu")
    assert isinstance(found, DescriptorCodec)
    return found


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A filter that does nothing, unless descriptors ask for more or less of one pattern in 16×16 pixels."""
    net = DescriptorNetwork(*CONFIGS[NAME].sizes)
    with torch.no_grad():
        for parameter in (*net.filter.parameters(), *net.context.parameters()):
            parameter.zero_()
        net.filter.enter.bias[:2] = torch.tensor([1.0, -1.0])  # which cancel, until one of them is steered
        net.filter.leave.weight[FINEST, :2] = 1
        net.filter.steer[:-1, -net.config.channels] = torch.linspace(-1.5, 1.5, CLASSES - 2)
        net.filter.steer[-1] = 9  # which nobody hears: this one leaves the JPEG as it is
        net.context.leave.bias[[0, CLASSES - 2]] = 8
    net.context.to_grid()
    folder = tmp_path_factory.mktemp("weights")
    save_file(net.shippable_state(), folder / f"{NAME}.safetensors")
    return folder


@pytest.fixture(scope="module")
def steered(weights: Path) -> DescriptorCodec:
    found = load_codec(NAME, QUALITY, weights=weights, device="cpu")
    assert isinstance(found, DescriptorCodec)
    return found


@pytest.fixture(scope="module")
def woven(face: Pixels) -> Pixels:
    """The picture with that pattern on its right: too faint for a level of its own."""
    coefficients = torch.zeros(1, 64, 13, 15)
    coefficients[:, FINEST, :, 8:] = 75
    pattern = plane_of(coefficients)[0, 0, : face.shape[0], : face.shape[1], None].numpy()
    return (face.clip(16, 239) + pattern).round().clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def searched(woven: Pixels, steered: DescriptorCodec) -> lof.Result:
    return lof.optimize(woven, codec=steered, profile="fast")


def shown(data: bytes) -> Pixels:
    """What other programs show."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def error(ours: Pixels, theirs: Pixels) -> float:
    return float(((ours.astype(float) - theirs) ** 2).mean())


def some_map(rows: int, columns: int) -> NDArray[np.int64]:
    return np.random.default_rng(rows).integers(0, 16, (rows, columns))


@pytest.mark.parametrize("size", SIZES)
def test_a_map_of_any_size_is_read_back(codec: DescriptorCodec, size: tuple[int, int]) -> None:
    chosen = some_map(*size)
    string = codec.coder.encode(chosen, 3.25)
    assert np.array_equal(codec.coder.decode(string, *size, 3.25), chosen)
    for alike, short in ((0, b""), (15, b"\x0f")):
        assert codec.coder.encode(0 * chosen + alike, 3.25) == short
        assert (codec.coder.decode(short, *size, 3.25) == alike).all()


def test_a_map_has_known_bytes(codec: DescriptorCodec) -> None:
    assert codec.coder.encode(some_map(3, 5), 2.0).hex() == "5ab5ae2275587c42190608e0"


def test_a_string_has_about_the_bits_of_the_model(codec: DescriptorCodec) -> None:
    chosen = torch.from_numpy(some_map(16, 24))
    tables = torch.full((1, 2, 64), 20.0)
    hot = torch.nn.functional.one_hot(chosen[None], 16).float()
    bits = float(codec.net.context.bits(hot, level_of(tables)).sum())
    level = 4.25  # quarters of an octave, of 20
    assert abs(8 * len(codec.coder.encode(chosen.numpy(), level)) - bits) < 0.01 * bits + 64


@pytest.mark.parametrize("string", [b"12345", b"\x07"])
def test_other_strings_are_refused(codec: DescriptorCodec, string: bytes) -> None:
    with pytest.raises(StreamError, match="no such string"):
        codec.coder.decode(string, 2, 2, 1.0)


def test_the_plain_encoding_is_the_jpeg_of_libjpeg_turbo_and_lof_shows_it_filtered(
    photograph: NDArray[np.uint8], codec: DescriptorCodec
) -> None:
    scene = np.ascontiguousarray(photograph[:120, :150])
    data = lof.encode(scene, codec=codec)
    plain = lof.encode(scene, codec="jpeg", quality=20)
    assert unpack(data).strings == (*unpack(plain).strings, b"")
    assert np.array_equal(shown(data), shown(plain))
    assert len(data) - len(plain) < 50
    assert 0 < error(lof.decode(data).pixels, shown(data)) < 9
    assert error(lof.decode(data).pixels, scene) < 0.99 * error(shown(data), scene)


def cost(codec: DescriptorCodec, woven: Pixels, size: int, pixels: Pixels) -> float:
    return 8 * size * 3 / woven.size + codec.lmbda * error(pixels, woven)


def test_neither_reading_of_a_searched_file_costs_more_than_the_plain_encoding(
    woven: Pixels, steered: DescriptorCodec, searched: lof.Result
) -> None:
    assert searched.kept == "search"
    assert searched.optimised.cost < searched.baseline.cost
    ours, plain = (unpack(data).strings[0] for data in (searched.data, lof.encode(woven, codec=steered)))
    assert cost(steered, woven, len(ours), shown(ours)) <= cost(steered, woven, len(plain), shown(plain))


def test_descriptors_are_worth_their_bits(
    woven: Pixels, steered: DescriptorCodec, weights: Path, searched: lof.Result
) -> None:
    stream = unpack(searched.data)
    assert len(stream.strings[1]) > 8
    assert np.array_equal(lof.decode(searched.data, weights=weights).pixels, searched.pixels)
    without = container("jpeg").pack(replace(stream, strings=(stream.strings[0], b""), digest=bytes(4)))
    neutral = steered.decompress(unpack(without).strings, *woven.shape[:2]).image
    pixels = container("jpeg").to_pixels(neutral)
    assert cost(steered, woven, len(searched.data), searched.pixels) < cost(
        steered, woven, len(without), pixels
    )


@pytest.mark.parametrize("kind", ["grey", "4:4:4"])
def test_other_kinds_of_jpegs_are_filtered_too(face: Pixels, codec: DescriptorCodec, kind: str) -> None:
    grey = np.repeat(face[..., :1], 3, 2)
    picture = Image.fromarray(grey if kind == "grey" else face)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=30, subsampling=0)
    source = Image.open(io.BytesIO(file.getvalue()))
    result = lof.optimize(grey if kind == "grey" else source, codec=codec, profile="fast")
    assert np.array_equal(lof.decode(result.data).pixels, result.pixels)
    assert Image.open(io.BytesIO(result.data)).mode == ("L" if kind == "grey" else "RGB")


def test_weights_of_another_training_leave_the_plain_picture_and_a_note(
    searched: lof.Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = unpack(searched.data)
    picture = lof.decode(searched.data, name="a.jpg")
    assert np.array_equal(picture.pixels, shown(searched.data))
    (note,) = picture.notes
    assert note.startswith("a.jpg: what lof added to this JPEG cannot be used (written with other weights of")
    monkeypatch.setattr("lof.containers.jpeg.CODEC_NUMBERS", {"jpeg-of-tomorrow": 99})
    unknown = container("jpeg").pack(replace(stream, codec="jpeg-of-tomorrow"))
    assert "codec 'jpeg-of-tomorrow': unknown" in lof.decode(unknown).notes[0]


def test_a_picture_that_the_filter_makes_worse_is_shown_as_it_is(face: Pixels, tmp_path: Path) -> None:
    net = DescriptorNetwork(*CONFIGS[NAME].sizes)
    torch.nn.init.constant_(net.filter.leave.bias, 5.0)
    net.context.to_grid()
    save_file(net.shippable_state(), tmp_path / f"{NAME}.safetensors")
    harmful = load_codec(NAME, 20, weights=tmp_path, device="cpu")
    data = lof.encode(face, codec=harmful)
    assert error(lof.decode(data, weights=tmp_path).pixels, shown(data)) < 1  # each rounds on its own
    filtered = harmful.decompress((unpack(data).strings[0], b""), *face.shape[:2]).image
    assert error(container("jpeg").to_pixels(filtered), shown(data)) > 20


def test_graphics_of_two_colours_are_searched() -> None:
    """The filter repairs halved colour there, and ruins whole colour; its slope asks for levels that no file holds."""
    dots = np.random.default_rng(0).random((43, 43)).repeat(3, 0).repeat(3, 1)[:128, :128, None] > 0.5
    picture = np.where(dots, [0, 0, 255], [255, 255, 0]).astype(np.uint8)
    codec = load_codec("jpeg-descriptors", 95, device="cpu")
    found = lof.optimize(picture, codec=codec, profile="fast", lmbda=1.3 * codec.lmbda)
    assert found.baseline.psnr < 15
    assert found.optimised.psnr > 30
    assert found.optimised.cost < found.baseline.cost / 10
    assert error(lof.decode(found.data).pixels, found.pixels) < 1  # each rounds on its own


def test_a_pattern_in_a_photograph_does_not_spoil_the_rest(photograph: NDArray[np.uint8]) -> None:
    picture = photograph[:160, 100:260].copy()
    rows, columns = np.mgrid[:24, :24]
    picture[48:72, 48:72] = 255 * ((rows + columns) % 2)[..., None]
    data = lof.encode(picture, codec=load_codec("jpeg-descriptors", 80, device="cpu"))
    filtered = lof.decode(data).pixels
    assert error(filtered, picture) < 0.92 * error(shown(data), picture)


@pytest.mark.parametrize("colours", [((0, 0, 255), (255, 0, 0)), ((0, 0, 0), (255, 255, 255))])
def test_graphics_cost_about_what_they_cost_without_a_filter(colours: tuple[tuple[int, ...], ...]) -> None:
    dots = np.random.default_rng(1).random((96, 96, 1)) > 0.5
    picture = np.where(dots, *colours).astype(np.uint8)
    codec = load_codec("jpeg-descriptors", 50, device="cpu")
    with_filter = lof.optimize(picture, codec=codec, profile="fast")
    without = lof.optimize(picture, codec="jpeg", quality=50, profile="fast", lmbda=codec.lmbda)
    assert with_filter.optimised.cost < 1.1 * without.optimised.cost


@pytest.mark.parametrize("target", [lof.Target(psnr=32), lof.Target(bpp=1.2)])
def test_a_target_is_met(face: Pixels, target: lof.Target) -> None:
    found = lof.optimize(face, codec="jpeg-descriptors", profile="fast", target=target)
    assert np.array_equal(lof.decode(found.data).pixels, found.pixels)
    if target.psnr is not None:
        assert 32 <= found.optimised.psnr < 32.1
    else:
        assert 1.15 < found.optimised.bpp <= 1.2


def test_packing_anew_keeps_the_descriptors(searched: lof.Result, weights: Path) -> None:
    packed = lof.repack(searched.data)
    assert np.array_equal(lof.decode(packed, weights=weights).pixels, searched.pixels)


def test_each_part_trains_what_it_names_and_one_file_ships_for_all_qualities(
    photos: Path, tmp_path: Path
) -> None:
    rungs = [{"steps": 2, "part": part} for part in ("filter", "steering", "searched", "descriptors")]
    content = {
        "name": "test",
        "codec": NAME,
        "crop": 64,
        "batch": 2,
        "rung": rungs,
        "schedule": {"warmup": 0},
    }
    recipe = parse_recipe(content | {"data": {"train": [str(photos)]}})
    paths = train(recipe, tmp_path, device="cpu")
    trained = [set(load_checkpoint(path).ema) for path in paths]
    assert {name.split(".")[0] for name in trained[0]} == {"filter"}
    assert "filter.steer" not in trained[0]
    assert (
        trained[1]
        == trained[2]
        == trained[3]
        >= {"filter.steer", "filter.last.0.a.weight", "context.leave.bias"}
    )
    assert not any(name.startswith(("filter.first", "filter.enter")) for name in trained[1])
    shipped = trainable(NAME).ship(load_checkpoint(paths[-1]).sd, "mse", None, "x")
    assert shipped.name == f"{NAME}.safetensors"
    again = trainable(NAME).build({})
    trainable(NAME).load(again, shipped.tensors, "x")
    assert isinstance(again, DescriptorNetwork)
    again.context.to_grid()
    assert all(torch.equal(value, shipped.tensors[key]) for key, value in again.shippable_state().items())
    with pytest.raises(TrainingError, match=r"^x: not weights of this network"):
        trainable(NAME).load(again, {k: v for k, v in shipped.tensors.items() if k != "sizes"}, "x")


@pytest.mark.parametrize("network", [{"views": 2}, {"edsr": 1, "views": 2}])
def test_two_views_make_rows_and_columns_alike(network: dict[str, int]) -> None:
    torch.manual_seed(1)
    net = trainable(NAME).build(network)
    assert isinstance(net, DescriptorNetwork)
    torch.nn.init.normal_(net.filter.leave.weight, std=0.005)
    coefficients, tables = 20 * torch.randn(1, 6, 4, 192), 9 + torch.rand(1, 2, 64)
    divisors = torch.tensor([[1.0, 2.0]])
    descriptors = F.one_hot(torch.arange(6).reshape(1, 3, 2), CLASSES).float()
    pixels = picture_of(coefficients)
    turned = transposed(coefficients)
    assert torch.allclose(picture_of(turned), pixels.transpose(2, 3), atol=1e-5)
    with torch.no_grad():
        added = net.filter(coefficients, tables, divisors, descriptors)
        again = net.filter(turned, transposed_tables(tables), divisors.flip(1), descriptors.transpose(1, 2))
    assert added.abs().max() > 0.01
    assert torch.allclose(transposed(again), added, atol=1e-4)


@pytest.mark.parametrize(("network", "kind"), [({"edsr": 1}, EdsrFilter), ({"views": 2}, PatchFilter)])
def test_another_filter_trains_and_reads_its_own_weights(
    face: Pixels, photos: Path, tmp_path: Path, network: dict[str, int], kind: type[Filter]
) -> None:
    content = {"name": "test", "codec": NAME, "network": network, "crop": 64, "batch": 2}
    content |= {"rung": [{"steps": 3, "part": part} for part in ("filter", "steering")]}
    recipe = parse_recipe(content | {"schedule": {"warmup": 0}, "data": {"train": [str(photos)]}})
    trained = load_checkpoint(train(recipe, tmp_path / "run", device="cpu")[-1])
    shipped = trainable(NAME).ship(trained.sd, "mse", None, "x")
    save_file(shipped.tensors, tmp_path / shipped.name)
    codec = load_codec(NAME, 20, weights=tmp_path, device="cpu")
    assert isinstance(codec, DescriptorCodec)
    assert isinstance(codec.net.filter, kind)
    assert codec.net.filter.views == network.get("views", 1)
    result = lof.optimize(face, codec=codec, profile="fast")
    again = lof.decode(result.data, weights=tmp_path).pixels
    assert np.array_equal(again, result.pixels)
    assert not np.array_equal(again, shown(result.data))


def test_what_the_family_has_not_is_one_clear_error() -> None:
    family = trainable(NAME)
    with pytest.raises(TrainingError, match=r"^network: "):
        family.build({"channel": 3})
    with pytest.raises(TrainingError, match="it has 'filter', 'steering', 'searched', 'descriptors',"):
        family.task(family.build({}), Aim("mse", None, None, torch.float32, part="prior"))
    with pytest.raises(TrainingError, match=r"^x: not weights of"):
        family.ship({}, "mse", None, "x")


def test_a_plain_encoding_asks_the_decoders_filter_alone(face: Pixels) -> None:
    codec = copy.copy(load_codec(NAME, 20, device="cpu"))
    expected = lof.encode(face, codec=codec)
    codec.fast = None  # type: ignore[attr-defined]  # the search's, in its precision and on its device
    assert lof.encode(face, codec=codec) == expected


@pytest.mark.parametrize("powers", [-1, 0, 2**20])
def test_powers_that_cannot_be_are_refused(tmp_path: Path, powers: int) -> None:
    state = load_codec(NAME, 20, device="cpu").state()
    state["context.powers"] = torch.full_like(state["context.powers"], powers)
    save_file(state, tmp_path / f"{NAME}.safetensors")
    with pytest.raises(WeightsError, match="its table of powers holds numbers that cannot be"):
        load_codec(NAME, 20, weights=tmp_path, device="cpu")
