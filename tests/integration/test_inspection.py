"""The type and size of an image are read from its header, and only three types are accepted."""

import io
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bot.domain.errors import PictureUnusable
from bot.images.inspection import MAX_SIDE, inspect, shrink
from tests.support.factories import image_bytes

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


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
        inspect(file, sha256="ab")
    return caught.value.observed


@pytest.mark.parametrize(("kind", "suffix"), [("PNG", ".png"), ("JPEG", ".jpg"), ("WEBP", ".webp")])
@pytest.mark.parametrize(("width", "height"), [(64, 36), (36, 64), (1, 1)])
def test_the_three_types_and_their_sizes_are_recognized(
    file: Path, kind: str, suffix: str, width: int, height: int
) -> None:
    content = image_bytes(kind, width=width, height=height)
    file.write_bytes(content)
    picture = inspect(file, sha256="ab")
    assert (picture.type, picture.width, picture.height) == (kind, width, height)
    assert (picture.path, picture.size, picture.sha256, picture.suffix) == (file, len(content), "ab", suffix)


def test_inspection_decodes_no_pixels(file: Path) -> None:
    file.write_bytes(png(4000, 3000, pixels=b"far too few"))
    assert inspect(file, sha256="").width == 4000


@pytest.mark.parametrize(
    ("width", "height"), [(30_000, 30_000), (2**31 - 1, 2**31 - 1), (10_000, 9_000), (MAX_SIDE + 1, 1), (8001, 8000)]
)
def test_an_image_too_large_to_decode_is_refused_from_its_header(file: Path, width: int, height: int) -> None:
    assert_refused(file, png(width, height))


@pytest.mark.parametrize(("width", "height"), [(MAX_SIDE, 1), (1, MAX_SIDE), (8000, 8000)])
def test_the_maximum_dimensions_are_accepted(file: Path, width: int, height: int) -> None:
    file.write_bytes(png(width, height))
    assert (inspect(file, sha256="").width, inspect(file, sha256="").height) == (width, height)


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
    assert (inspect(disguised, sha256="").type, inspect(disguised, sha256="").suffix) == ("JPEG", ".jpg")


@given(kind=st.sampled_from(["PNG", "JPEG", "WEBP"]), place=st.integers(0, 60), byte=st.integers(0, 255))
def test_damage_raises_at_most_one_kind_of_error(
    tmp_path_factory: pytest.TempPathFactory, kind: str, place: int, byte: int
) -> None:
    content = bytearray(image_bytes(kind))
    content[place] = byte
    damaged = tmp_path_factory.getbasetemp() / "damaged"
    damaged.write_bytes(content)
    try:
        picture = inspect(damaged, sha256="")
        shrink(picture, limit=10**6)
    except PictureUnusable:
        pass


# --- making a result fit ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [600_000, 120_000, 40_000])
def test_a_large_noisy_image_is_shrunk_to_fit(file: Path, limit: int) -> None:
    file.write_bytes(image_bytes(width=960, height=540, noisy=True))
    large = inspect(file, sha256="")
    assert large.size > 1_500_000
    fitting = shrink(large, limit=limit)
    assert fitting is not None
    assert fitting.content is not None
    assert (fitting.type, fitting.size) == ("JPEG", len(fitting.content))
    assert fitting.size <= limit
    assert abs(fitting.width / fitting.height - 16 / 9) < 0.02


def test_an_image_that_cannot_be_shrunk_enough_gives_nothing(file: Path) -> None:
    file.write_bytes(image_bytes(noisy=True))
    assert not shrink(inspect(file, sha256=""), limit=100)


def test_an_image_with_transparency_can_be_shrunk(file: Path) -> None:
    Image.new("RGBA", (64, 36), (1, 2, 3, 4)).save(file, "PNG")
    assert shrink(inspect(file, sha256=""), limit=100_000)


@pytest.mark.parametrize(
    "content", [png(40, 30, pixels=b"too few"), image_bytes("JPEG")[:-400], image_bytes("WEBP")[:-20]]
)
def test_a_damaged_image_cannot_be_shrunk(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(PictureUnusable):
        shrink(inspect(file, sha256=""), limit=100_000)
