"""The type and size of an image are read from its header, and a finished image is checked to its end."""

import contextlib
import io
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bot.domain.errors import PictureUnusable
from bot.images.formats import MAX_PARTS, is_sequential
from bot.images.inspection import MAX_SIDE, inspect, inspect_to_the_end, shrink, smaller_copy
from tests.support.factories import image_bytes
from tests.support.hostile_images import FRAME, HEADER, HOSTILE, SCAN, SIGNATURE, chunk, segment


def png(width: int, height: int, *, pixels: bytes = b"") -> bytes:
    """A PNG whose header claims a size, whatever its `pixels` really are."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def unsupported_image(kind: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 36), "teal").save(file, kind)
    return file.getvalue()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "k3f9.part"


def assert_refused(file: Path, content: bytes) -> str:
    file.write_bytes(content)
    with pytest.raises(PictureUnusable) as caught:
        inspect(file)
    return caught.value.observed


@pytest.mark.parametrize(("kind", "suffix"), [("PNG", ".png"), ("JPEG", ".jpg"), ("WEBP", ".webp")])
@pytest.mark.parametrize(("width", "height"), [(64, 36), (36, 64), (1, 1)])
def test_the_three_types_and_their_sizes_are_recognized(
    file: Path, kind: str, suffix: str, width: int, height: int
) -> None:
    content = image_bytes(kind, width=width, height=height)
    file.write_bytes(content)
    picture = inspect(file)
    assert (picture.type, picture.width, picture.height) == (kind, width, height)
    assert (picture.path, picture.size, picture.suffix) == (file, len(content), suffix)


def test_inspection_decodes_no_pixels(file: Path) -> None:
    file.write_bytes(png(4000, 3000, pixels=b"far too few"))
    assert inspect(file).width == 4000


@pytest.mark.parametrize(
    ("width", "height"), [(30_000, 30_000), (2**31 - 1, 2**31 - 1), (10_000, 9_000), (MAX_SIDE + 1, 1), (8001, 8000)]
)
def test_an_image_too_large_to_decode_is_refused_from_its_header(file: Path, width: int, height: int) -> None:
    assert_refused(file, png(width, height))


@pytest.mark.parametrize(("width", "height"), [(MAX_SIDE, 1), (1, MAX_SIDE), (8000, 8000)])
def test_the_maximum_dimensions_are_accepted(file: Path, width: int, height: int) -> None:
    file.write_bytes(png(width, height))
    assert (inspect(file).width, inspect(file).height) == (width, height)


@pytest.mark.parametrize(("width", "height"), [(0, 10), (10, 0)])
def test_an_image_with_a_side_of_zero_is_refused(file: Path, width: int, height: int) -> None:
    assert_refused(file, png(width, height))


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "BMP", "ICO", "PPM", "TGA", "PCX"])
def test_another_image_type_is_refused(file: Path, kind: str) -> None:
    assert assert_refused(file, unsupported_image(kind)) == "not an image of a known type"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x89",
        SIGNATURE,
        b"<!doctype html><h1>Bad gateway</h1>",
        b'{"error": "gone"}',
        b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        b"%PDF-1.7\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        b"\x00\x00\x00 ftypavif\x00\x00\x00\x00",
        b"RIFF\x10\x00\x00\x00WEBPVP8 ",
        b"\xff\xd8\xff",
        bytes(1000),
    ],
)
def test_a_file_that_is_not_an_image_is_refused(file: Path, content: bytes) -> None:
    assert_refused(file, content)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_truncated_header_is_refused(file: Path, kind: str) -> None:
    assert_refused(file, image_bytes(kind)[:16])


@pytest.mark.parametrize("first", [b"GIF89a", b"<html>", b"%PDF-1.7\n", b"MM\x00*", b"PK\x03\x04", b"\n"])
def test_an_image_after_the_start_of_another_format_is_refused(file: Path, first: bytes) -> None:
    assert_refused(file, first + image_bytes())


def test_the_content_decides_the_type_and_not_the_file_name(tmp_path: Path) -> None:
    disguised = tmp_path / "cat.png"
    disguised.write_bytes(image_bytes("JPEG") + b"<script>alert(1)</script>")
    assert (inspect(disguised).type, inspect(disguised).suffix) == ("JPEG", ".jpg")


@given(kind=st.sampled_from(["PNG", "JPEG", "WEBP"]), place=st.integers(0, 60), byte=st.integers(0, 255))
def test_damage_raises_at_most_one_kind_of_error(
    tmp_path_factory: pytest.TempPathFactory, kind: str, place: int, byte: int
) -> None:
    content = bytearray(image_bytes(kind))
    content[place] = byte
    damaged = tmp_path_factory.getbasetemp() / "damaged"
    damaged.write_bytes(content)
    try:
        picture = inspect(damaged)
        shrink(picture, limit=10**6)
    except PictureUnusable:
        pass


# --- to the end ---------------------------------------------------------------------------------------------------


def noise(mode: str = "RGB", *, width: int = 48, height: int = 27) -> Image.Image:
    return Image.effect_noise((width, height), 80).convert(mode)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def exif_of_a_camera() -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F] = "A camera"
    return exif


def interlaced_png() -> bytes:
    """A gray image of 8 x 8 pixels in the seven passes of Adam7, which Pillow can only read."""
    passes = ((1, 1), (1, 1), (2, 1), (2, 2), (4, 2), (4, 4), (8, 4))
    rows = b"".join((b"\0" + b"\x7f" * width) * height for width, height in passes)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 1))
    return SIGNATURE + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def jpeg_with_a_thumbnail() -> bytes:
    """A whole JPEG, with its own end, is inside the first segment."""
    content = saved(noise(), "JPEG")
    thumbnail = saved(noise(width=16, height=9), "JPEG")
    return content[:2] + segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0" + thumbnail) + content[2:]


def jpeg_with_repeated_fill_bytes() -> bytes:
    content = saved(noise(), "JPEG")
    start = content.index(b"\xff\xdb")
    return content[:start] + b"\xff" * 9 + content[start:]


HONEST: dict[str, tuple[str, Callable[[], bytes]]] = {
    "PNG": ("PNG", lambda: saved(noise(), "PNG")),
    "PNG, gray with 16 bits": ("PNG", lambda: saved(noise("I;16"), "PNG")),
    "PNG, a palette with transparency": ("PNG", lambda: saved(noise("P"), "PNG", transparency=3)),
    "PNG, black and white": ("PNG", lambda: saved(noise("1"), "PNG")),
    "PNG, RGBA with a profile and Exif": (
        "PNG",
        lambda: saved(noise("RGBA"), "PNG", icc_profile=b"profile" * 99, exif=exif_of_a_camera()),
    ),
    "PNG, interlaced": ("PNG", interlaced_png),
    "PNG, animated": ("PNG", lambda: saved(noise(), "PNG", save_all=True, append_images=[noise(), noise()])),
    "PNG, several chunks of pixels": ("PNG", lambda: saved(noise(width=300, height=300), "PNG")),
    "JPEG": ("JPEG", lambda: saved(noise(), "JPEG")),
    "JPEG, gray": ("JPEG", lambda: saved(noise("L"), "JPEG")),
    "JPEG, CMYK": ("JPEG", lambda: saved(noise("CMYK"), "JPEG")),
    "JPEG, progressive": ("JPEG", lambda: saved(noise(), "JPEG", progressive=True, quality=95)),
    "JPEG, with restarts": ("JPEG", lambda: saved(noise(), "JPEG", restart_marker_blocks=1)),
    "JPEG, a comment and a profile in parts": (
        "JPEG",
        lambda: saved(noise(), "JPEG", comment=b"cat", icc_profile=b"x" * 200_000, exif=exif_of_a_camera()),
    ),
    "JPEG, a thumbnail in Exif": ("JPEG", jpeg_with_a_thumbnail),
    "JPEG, fill bytes": ("JPEG", jpeg_with_repeated_fill_bytes),
    "WebP, lossy": ("WEBP", lambda: saved(noise(), "WEBP")),
    "WebP, lossless": ("WEBP", lambda: saved(noise(), "WEBP", lossless=True)),
    "WebP, lossy with transparency": ("WEBP", lambda: saved(noise("RGBA"), "WEBP")),
    "WebP, a profile and Exif": ("WEBP", lambda: saved(noise(), "WEBP", icc_profile=b"odd", exif=exif_of_a_camera())),
    "WebP, animated": ("WEBP", lambda: saved(noise(), "WEBP", save_all=True, append_images=[noise(), noise()])),
}


@cache
def honest(name: str) -> tuple[str, bytes]:
    kind, make = HONEST[name]
    return kind, make()


def to_the_end(content: bytes) -> tuple[str, int, int]:
    picture = inspect_to_the_end(Path("k3f9"), content=content)
    assert (picture.size, picture.content) == (len(content), content)
    return picture.type, picture.width, picture.height


@pytest.mark.parametrize("name", HONEST)
def test_what_honest_encoders_make_is_whole(file: Path, name: str) -> None:
    kind, content = honest(name)
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        expected = (kind, *image.size)
    assert to_the_end(content) == expected
    file.write_bytes(content)
    for picture in (inspect(file), inspect_to_the_end(file)):
        assert (picture.type, picture.width, picture.height, picture.size) == (*expected, len(content))


@pytest.mark.parametrize("name", HONEST)
@pytest.mark.parametrize("after", [b"\0" * 5000, b"\xff", b"<script>alert(1)</script>"])
def test_anything_may_follow_the_end_of_an_image(name: str, after: bytes) -> None:
    kind, content = honest(name)
    assert to_the_end(content + after)[0] == kind


def test_a_jpeg_with_a_second_one_behind_it_is_a_jpeg() -> None:
    content = saved(noise(), "MPO", save_all=True, append_images=[noise(width=16, height=9)])
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "MPO"  # Pillow's name of it
    assert to_the_end(content) == ("JPEG", 48, 27)
    assert to_the_end(content[: content.index(b"\xff\xd9") + 2]) == ("JPEG", 48, 27)


@given(name=st.sampled_from(sorted(HONEST)), missing=st.integers(1, 400), data=st.data())
def test_an_image_that_lacks_its_last_bytes_is_refused(name: str, missing: int, data: st.DataObject) -> None:
    _, content = honest(name)
    left = max(0, len(content) - missing) if data.draw(st.booleans()) else data.draw(st.integers(0, len(content) - 1))
    with pytest.raises(PictureUnusable):
        to_the_end(content[:left])


@pytest.mark.parametrize("name", ["PNG", "JPEG, progressive", "JPEG, a thumbnail in Exif", "WebP, animated"])
def test_an_image_is_refused_wherever_it_is_cut_off(name: str) -> None:
    _, content = honest(name)
    for left in range(len(content)):
        with pytest.raises(PictureUnusable):
            to_the_end(content[:left])


@given(place=st.integers(8, 10**6), bit=st.integers(0, 7))
def test_a_flipped_bit_in_a_png_is_noticed(place: int, bit: int) -> None:
    content = bytearray(honest("PNG")[1])
    content[8 + place % (len(content) - 8)] ^= 1 << bit
    with pytest.raises(PictureUnusable):
        to_the_end(bytes(content))


@given(name=st.sampled_from(sorted(HONEST)), place=st.integers(0, 10**6), junk=st.binary(min_size=1, max_size=40))
def test_damage_anywhere_raises_at_most_one_kind_of_error(name: str, place: int, junk: bytes) -> None:
    content = bytearray(honest(name)[1])
    start = place % len(content)
    content[start : start + len(junk)] = junk
    with contextlib.suppress(PictureUnusable):
        to_the_end(bytes(content))


@pytest.mark.parametrize(
    "content",
    [
        SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 2, 0, 0, 0)) + chunk(b"IEND", b""),
        b"\xff\xd8" + segment(0xC0, struct.pack(">BHHB", 8, 9, 9, 0)) + b"\xff\xd9",
        b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0" + bytes(10),
    ],
    ids=["PNG", "JPEG", "WebP"],
)
def test_an_image_without_pixels_is_refused(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    assert inspect(file).width
    with pytest.raises(PictureUnusable, match="without pixels"):
        to_the_end(content)


# --- hostile files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_of_millions_of_parts_is_refused_quickly(file: Path, name: str) -> None:
    file.write_bytes(HOSTILE[name]())
    started = time.process_time()
    with pytest.raises(PictureUnusable, match="too many parts" if "tiny" in name else None):
        inspect_to_the_end(file)
    assert time.process_time() - started < 2, "many times what it needs, a fraction of what all the parts would"


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_of_millions_of_parts_needs_little_memory(file: Path, name: str) -> None:
    file.write_bytes(HOSTILE[name]())
    tracemalloc.start()
    with pytest.raises(PictureUnusable):
        inspect_to_the_end(file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize(
    ("part", "before", "after"),
    [
        (chunk(b"IDAT", b"x"), SIGNATURE + HEADER, chunk(b"IEND", b"")),
        (segment(0xFE, b"x"), b"\xff\xd8" + FRAME + SCAN, b"\xff\xd9"),
    ],
    ids=["PNG", "JPEG"],
)
def test_as_many_parts_as_any_honest_image_could_have_are_accepted(part: bytes, before: bytes, after: bytes) -> None:
    assert to_the_end(before + part * (MAX_PARTS - 2) + after)
    with pytest.raises(PictureUnusable, match="too many parts"):
        to_the_end(before + part * (MAX_PARTS + 1) + after)


# --- making a result fit ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [600_000, 120_000, 40_000])
def test_a_large_noisy_image_is_shrunk_to_fit(file: Path, limit: int) -> None:
    file.write_bytes(image_bytes(width=960, height=540, noisy=True))
    large = inspect(file)
    assert large.size > 1_500_000
    fitting = shrink(large, limit=limit)
    assert fitting is not None
    assert fitting.content is not None
    assert (fitting.type, fitting.size) == ("JPEG", len(fitting.content))
    assert fitting.size <= limit
    assert abs(fitting.width / fitting.height - 16 / 9) < 0.02


def test_an_image_that_cannot_be_shrunk_enough_gives_nothing(file: Path) -> None:
    file.write_bytes(image_bytes(noisy=True))
    assert not shrink(inspect(file), limit=100)


def test_an_image_with_transparency_can_be_shrunk(file: Path) -> None:
    Image.new("RGBA", (64, 36), (1, 2, 3, 4)).save(file, "PNG")
    assert shrink(inspect(file), limit=100_000)


@pytest.mark.parametrize(
    "content", [png(40, 30, pixels=b"too few"), image_bytes("JPEG")[:-400], image_bytes("WEBP")[:-20]]
)
def test_a_damaged_image_cannot_be_shrunk(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(PictureUnusable):
        shrink(inspect(file), limit=100_000)


# --- smaller copies --------------------------------------------------------------------------------------------------


def copied(content: bytes, *, limit: int = 10**6, max_pixels: int = 10**6) -> Image.Image:
    copy = smaller_copy(content, limit=limit, max_pixels=max_pixels)
    assert len(copy) <= limit
    image = Image.open(io.BytesIO(copy))
    assert (image.format, image.mode, image.width * image.height <= max_pixels) == ("JPEG", "RGB", True)
    return image


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_copy_keeps_the_proportions_and_fits_the_limits(kind: str) -> None:
    content = image_bytes(kind, width=1600, height=900, noisy=True)
    assert copied(content).size == (1333, 750)
    assert len(smaller_copy(content, limit=50_000, max_pixels=10**6)) <= 50_000


def test_a_copy_is_upright_whatever_the_metadata_says() -> None:
    photo = Image.new("RGB", (200, 100), "red")
    photo.paste("blue", (0, 0, 100, 100))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned right
    copy = copied(saved(photo, "JPEG", exif=exif, quality=95))
    assert copy.size == (100, 200)
    assert (copy.getpixel((50, 10)), copy.getpixel((50, 190))) == ((0, 0, 254), (254, 0, 0))
    assert not copy.getexif()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_becomes_white(mode: str) -> None:
    clear = Image.new("RGBA", (64, 64), (0, 0, 0, 0)).convert(mode)
    options = {"transparency": clear.getpixel((0, 0))} if mode == "P" else {}
    assert copied(saved(clear, "PNG", **options)).getpixel((5, 5)) == (255, 255, 255)


def test_a_copy_keeps_the_color_profile() -> None:
    profile = b"\0" * 128
    content = saved(Image.new("RGB", (64, 64)), "JPEG", icc_profile=profile)
    assert copied(content).info["icc_profile"] == profile


def test_a_jpeg_of_144_megapixels_is_copied_without_decoding_all_of_it() -> None:
    content = saved(Image.new("L", (12_000, 12_000), 77), "JPEG")
    assert copied(content, max_pixels=50_000_000).size == (3000, 3000)


@pytest.mark.parametrize(
    "content",
    [
        b"no image",
        png(12_000, 12_000),
        png(10, 10),
        image_bytes("JPEG", noisy=True)[:-900],
        saved(Image.new("RGB", (64, 64)), "GIF"),
    ],
    ids=["text", "too many pixels", "no pixels", "cut off", "another type"],
)
def test_what_cannot_be_copied_safely_is_refused(content: bytes) -> None:
    with pytest.raises(PictureUnusable):
        smaller_copy(content, limit=10**6, max_pixels=10**6)


def test_what_needs_too_much_memory_to_be_copied_is_refused() -> None:
    with pytest.raises(PictureUnusable):
        smaller_copy(saved(Image.new("L", (9000, 9000)), "JPEG", progressive=True), limit=10**6, max_pixels=10**6)


def test_an_image_that_does_not_get_small_enough_is_refused() -> None:
    with pytest.raises(PictureUnusable):
        smaller_copy(image_bytes(width=300, height=300, noisy=True), limit=700, max_pixels=10**6)


@pytest.mark.parametrize(
    ("options", "expected"), [({}, True), ({"progressive": True}, False), ({"subsampling": 0}, True)]
)
def test_a_sequential_jpeg_is_recognized(options: dict[str, Any], *, expected: bool) -> None:
    content = saved(Image.new("RGB", (64, 64)), "JPEG", **options)
    assert is_sequential(io.BytesIO(content)) is expected


def test_a_jpeg_with_one_color_per_scan_is_not_sequential() -> None:
    frame = segment(0xC0, bytes([8]) + struct.pack(">HH", 8, 8) + bytes([3]) + bytes(9))
    scan = segment(0xDA, bytes([1, 1, 0, 0, 63, 0]))
    assert not is_sequential(io.BytesIO(b"\xff\xd8" + frame + scan + b"\xff\xd9"))
    assert not is_sequential(io.BytesIO(b"\xff\xd8" + frame + b"\xff\xd9"))


@given(st.binary(max_size=300), st.sampled_from(["PNG", "JPEG", "WEBP"]), st.integers(0, 300))
def test_a_damaged_file_is_copied_or_refused_and_nothing_else(noise: bytes, kind: str, at: int) -> None:
    content = image_bytes(kind)
    with contextlib.suppress(PictureUnusable):
        smaller_copy(content[:at] + noise + content[at + len(noise) :], limit=10**6, max_pixels=10**6)
