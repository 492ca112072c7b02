"""What a file says beside its pixels is kept or named, and comes back in every format that has a place for it."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin, TiffImagePlugin

from lof.errors import ImageError
from lof.pictures.picture import Picture
from lof.pictures.reading import picture_of, read_picture
from lof.pictures.writing import image_bytes, not_held, png_bytes

RGB = np.random.default_rng(1).integers(0, 256, (13, 17, 3), dtype=np.uint8)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP_PACKET = "<x:xmpmeta xmlns:x='adobe:ns:meta/'><a>Grüße</a></x:xmpmeta>".encode()
IIM = b"\x1c\x02\x00\x00\x02\x00\x04\x1c\x02\x50\x00\x05Maker"
EXIF_BLOCK = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 1, 0, 0)
PER_METRE = struct.pack(">IIB", 11811, 5906, 1)  # 300 and 150 per inch
FULL = {b"iccp": SRGB, b"exif": EXIF_BLOCK, b"xmpd": XMP_PACKET, b"iptc": IIM, b"reso": PER_METRE}


def save(path: Path, image: Image.Image | None = None, **options: object) -> Path:
    (image or Image.fromarray(RGB)).save(path, **options)  # type: ignore[arg-type]
    return path


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_with(path: Path, *chunks: bytes) -> Path:
    data = png_bytes(Picture(RGB))
    path.write_bytes(data[:33] + b"".join(chunks) + data[33:])
    return path


def app13(*resources: tuple[int, bytes]) -> bytes:
    body = b"Photoshop 3.0\0"
    for number, data in resources:
        body += b"8BIM" + struct.pack(">HHI", number, 0, len(data)) + data + bytes(len(data) % 2)
    return b"\xff\xed" + struct.pack(">H", len(body) + 2) + body


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WEBP", "BMP"])
def test_what_a_format_can_hold_comes_back_from_it(format: str) -> None:
    picture = Picture(RGB, FULL)
    kept = {kind: data for kind, data in FULL.items() if kind not in not_held(picture, format)}
    again = read_picture(
        f"a.{format}", image_bytes(picture, format, **({"lossless": True} if format == "WEBP" else {}))
    )
    assert len(kept) == {"PNG": 5, "JPEG": 5, "TIFF": 5, "WEBP": 3, "BMP": 1}[format]
    if format == "TIFF":  # written anew, without the orientation that is 1
        kept.pop(b"exif")
    assert {kind: again.boxes.get(kind) for kind in kept} == kept
    if format != "JPEG":
        assert np.array_equal(again.pixels, RGB)
    if format != "BMP":
        assert again.notes == ()


@pytest.mark.parametrize(
    ("boxes", "format", "what"),
    [({b"reso": b"12345"}, "PNG", "resolution"), ({b"exif": b"garbage"}, "TIFF", "EXIF")],
)
def test_metadata_that_are_none_are_one_clear_error(
    boxes: dict[bytes, bytes], format: str, what: str
) -> None:
    with pytest.raises(ImageError, match=rf"^its metadata are damaged \({what}\); copy it again"):
        image_bytes(Picture(RGB, boxes), format)


def test_a_png_without_boxes_says_nothing_beside_its_pixels() -> None:
    with Image.open(io.BytesIO(png_bytes(Picture(RGB)))) as bare:
        assert bare.info == {}


def test_the_shape_of_pixels_without_a_unit_comes_back_from_png_alone() -> None:
    picture = Picture(RGB, {b"reso": struct.pack(">IIB", 2, 1, 0)})
    assert read_picture("a.png", png_bytes(picture)).boxes == picture.boxes
    assert not_held(picture, "JPEG") == [b"reso"]


def test_metadata_too_long_for_a_jpeg_is_left_out_of_it_and_named() -> None:
    picture = Picture(RGB, {b"xmpd": XMP_PACKET.ljust(70000), b"exif": EXIF_BLOCK})
    assert not_held(picture, "JPEG") == [b"xmpd"]
    assert read_picture("a.jpg", image_bytes(picture, "JPEG")).boxes == {b"exif": EXIF_BLOCK}


@pytest.mark.parametrize("name", ["a.jpg", "a.webp", "a.avif"])
def test_xmp_is_kept(tmp_path: Path, name: str) -> None:
    assert read_picture(save(tmp_path / name, xmp=XMP_PACKET)).boxes == {b"xmpd": XMP_PACKET}


def test_an_orientation_that_xmp_tells_is_applied_and_reset(tmp_path: Path) -> None:
    xmp = b'<a tiff:Orientation="6"/>'
    picture = read_picture(save(tmp_path / "a.jpg", xmp=xmp))
    assert picture.pixels.shape == (17, 13, 3)
    assert picture.boxes[b"xmpd"] == xmp.replace(b"6", b"1")


def test_iptc_of_a_jpeg_is_kept_and_other_data_of_photoshop_noted(tmp_path: Path) -> None:
    both = save(tmp_path / "a.jpg", extra=app13((0x0404, IIM), (0x0425, bytes(16))))
    assert read_picture(both).boxes == {b"iptc": IIM}
    assert read_picture(both).notes == ()
    more = save(tmp_path / "b.jpg", extra=app13((0x07D0, b"a path")))
    assert read_picture(more).notes == ("Photoshop data dropped",)


def test_iptc_of_a_tiff_is_kept_whatever_its_type(tmp_path: Path) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[33723] = IIM.ljust(20, b"\0")
    data = save(tmp_path / "a.tif", tiffinfo=tags).read_bytes()
    as_integers = data.replace(struct.pack("<HHI", 33723, 7, 20), struct.pack("<HHI", 33723, 4, 5))
    assert as_integers != data
    for content in (data, as_integers):
        assert read_picture("a.tif", content).boxes == {b"iptc": IIM.ljust(20, b"\0")}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.jpg", {"dpi": (300, 150)}),
        ("a.png", {"dpi": (300, 150)}),
        ("a.tif", {"dpi": (300, 150)}),
        ("b.tif", {"x_resolution": 11811 / 100, "y_resolution": 5906 / 100, "resolution_unit": 3}),
        ("a.bmp", {"dpi": (300, 150)}),
    ],
)
def test_the_resolution_is_kept(tmp_path: Path, name: str, options: dict[str, object]) -> None:
    picture = read_picture(save(tmp_path / name, **options))
    across, down, unit = struct.unpack(">IIB", picture.boxes[b"reso"])
    assert (abs(across - 11811) <= 1, abs(down - 5906) <= 1, unit) == (True, True, 1)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif"])
def test_a_turned_picture_has_its_resolution_turned(tmp_path: Path, name: str) -> None:
    tags = Image.Exif()
    tags[0x0112] = 6
    picture = read_picture(save(tmp_path / name, dpi=(300, 150), exif=tags))
    assert struct.unpack(">II", picture.boxes[b"reso"][:8]) == (5906, 11811)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp"])
def test_a_file_without_a_resolution_gets_none(tmp_path: Path, name: str) -> None:
    assert read_picture(save(tmp_path / name)).boxes == {}


def test_a_resolution_that_makes_no_sense_is_none(tmp_path: Path) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[282], tags[283], tags[296] = TiffImagePlugin.IFDRational(0, 0), 300, 2
    assert read_picture(save(tmp_path / "a.tif", tiffinfo=tags)).boxes == {}
    assert read_picture(png_with(tmp_path / "a.png", chunk(b"pHYs", bytes(8) + b"\1"))).boxes == {}


@pytest.mark.parametrize(
    ("chunks", "note"),
    [
        ([chunk(b"gAMA", struct.pack(">I", 100000))], "gamma 1 dropped"),
        ([chunk(b"cHRM", struct.pack(">8I", *[31270] * 8))], "chromaticities dropped"),
        ([chunk(b"tIME", bytes([7, 234, 1, 1, 0, 0, 0]))], "time of the last change dropped"),
        ([chunk(b"cICP", bytes([9, 16, 0, 1]))], "colour description (primaries 9, transfer 16) dropped"),
        ([chunk(b"tEXt", b"Title\0A picture")], "text comments dropped"),
        ([chunk(b"sRGB", b"\0"), chunk(b"gAMA", struct.pack(">I", 45455))], None),
        ([chunk(b"cICP", bytes([1, 13, 0, 1]))], None),
    ],
)
def test_what_no_box_keeps_of_a_png_is_noted(tmp_path: Path, chunks: list[bytes], note: str | None) -> None:
    picture = read_picture(png_with(tmp_path / "a.png", *chunks))
    assert picture.notes == (() if note is None else (note,))
    assert np.array_equal(picture.pixels, RGB)


def test_what_no_box_keeps_of_a_jpeg_is_noted(tmp_path: Path) -> None:
    jumbf = b"\xff\xeb" + struct.pack(">H", 10) + b"contents"
    picture = read_picture(save(tmp_path / "a.jpg", comment=b"hello", extra=jumbf))
    assert picture.notes == ("JPEG segments dropped (APP11)", "text comments dropped")
    gain_map = read_picture(save(tmp_path / "b.jpg", xmp=b'<x hdrgm:Version="1.0"/>'))
    assert gain_map.notes == ("HDR gain map dropped",)


def test_what_no_box_keeps_of_a_tiff_is_noted(tmp_path: Path) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[33550] = (0.5, 0.5, 0.0)
    tags.tagtype[33550] = 12
    tags[0x013B] = "Artist"
    picture = read_picture(save(tmp_path / "a.tif", tiffinfo=tags, compression="tiff_lzw"))
    assert picture.notes == ("TIFF tags dropped (33550)",)
    again = Image.Exif()
    again.load(picture.exif)
    assert again[0x013B] == "Artist"


def test_a_pillow_image_keeps_the_same_as_its_file(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", XMP_PACKET.decode())
    path = save(tmp_path / "a.png", pnginfo=info, dpi=(300, 300), icc_profile=SRGB)
    with Image.open(path) as image:
        assert picture_of(image).boxes == read_picture(path).boxes
    assert set(read_picture(path).boxes) == {b"iccp", b"xmpd", b"reso"}
    assert read_picture(path).held == "ICC profile, XMP and resolution"


def test_boxes_of_jpeg_2000_are_noted_in_few_words(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jp2")
    boxes = b"".join(struct.pack(">I4s", 8, b"%04d" % number) for number in range(5000))
    path.write_bytes(path.read_bytes() + struct.pack(">I4s", 8, b"\x1b[2J") + boxes)
    (note,) = (note for note in read_picture(path).notes if "boxes" in note)
    assert note.startswith("boxes of JPEG 2000 dropped (1b5b324a, 0000, 0001")
    assert note.endswith(" and 4993 more)")
    assert len(note) < 120
