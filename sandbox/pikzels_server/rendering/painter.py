"""Paints a thumbnail from a reference image. Each model has its own look, and the prompt is the headline."""

import io
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter, ImageOps

from sandbox.pikzels_server.rendering.typography import Box, TextLayout, load_font, typeset

SIZES: Mapping[str, tuple[int, int]] = MappingProxyType({"16:9": (1280, 720), "9:16": (720, 1280), "1:1": (1024, 1024)})
READABLE = ("JPEG", "PNG", "WEBP", "GIF")
PIXELS_MAX = 64_000_000
DRAFT = 1400
BLACK = (0, 0, 0)
WHITE = (255, 255, 255)
# Neighbors differ clearly in hue, so that the results of two consecutive calls are easy to tell apart.
ACCENTS = ((255, 214, 10), (255, 45, 85), (0, 229, 255), (124, 255, 79), (255, 122, 0), (214, 112, 255))
DUOTONE_SHARE: Mapping[str, float] = MappingProxyType({"low": 1.0, "medium": 0.88, "high": 0.62})

Color = tuple[int, int, int]


class UnreadableImage(ValueError):
    """The bytes are not an image that can be decoded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThumbnailSpec:
    """The options of a thumbnail. `call` varies the accent color and the crop."""

    model: str
    format: str
    prompt: str = ""
    weight: str = "medium"
    call: int = 0

    @property
    def accent(self) -> Color:
        return ACCENTS[self.call % len(ACCENTS)]

    @property
    def size(self) -> tuple[int, int]:
        return SIZES[self.format]

    @property
    def unit(self) -> float:
        """One percent of the image's shorter side, in pixels."""
        return min(self.size) / 100


def paint(spec: ThumbnailSpec, reference: bytes, *, support: bytes | None = None) -> bytes:
    """Paint a PNG in the spec's format; raises UnreadableImage."""
    canvas = _grade(spec, _crop(spec, open_image(reference)))
    if support is not None:
        _draw_inset(spec, canvas, open_image(support))
    # The provider ignores the prompt for this model.
    if spec.model != "pkz_2":
        _draw_headline(spec, canvas)
    _draw_badge(spec, canvas)
    sink = io.BytesIO()
    canvas.save(sink, "PNG", compress_level=1)
    return sink.getvalue()


def open_image(data: bytes) -> Image.Image:
    """Decode the image, upright and in RGB; raises UnreadableImage."""
    try:
        with Image.open(io.BytesIO(data), formats=READABLE) as image:
            if image.width * image.height > PIXELS_MAX:
                raise UnreadableImage("too many pixels")
            # Decode a large photo at roughly the size needed, not at full size.
            image.draft("RGB", (DRAFT, DRAFT))
            upright = ImageOps.exif_transpose(image)
            return _flatten(upright) if upright.has_transparency_data else upright.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImage from error


def _flatten(image: Image.Image) -> Image.Image:
    """Put a transparent image on a dark gray background."""
    ground = Image.new("RGBA", image.size, (24, 24, 28, 255))
    return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")


def _crop(spec: ThumbnailSpec, image: Image.Image) -> Image.Image:
    """Crop the image to fill the frame, with a slightly different zoom and position on every call."""
    rng = random.Random(spec.call)
    zoom = 1.0 + 0.07 * rng.random()
    width, height = spec.size
    enlarged = (round(width * zoom), round(height * zoom))
    # Faces are above the middle more often than below it.
    cover = ImageOps.fit(image, enlarged, Image.Resampling.BICUBIC, centering=(0.5, 0.22))
    left = round((enlarged[0] - width) * rng.random())
    top = round((enlarged[1] - height) * rng.random())
    return cover.crop((left, top, left + width, top + height))


def _grade(spec: ThumbnailSpec, image: Image.Image) -> Image.Image:
    crisp = image.filter(ImageFilter.UnsharpMask(radius=3, percent=90, threshold=2))
    return GRADES[spec.model](spec, crisp)


def _grade_duotone(spec: ThumbnailSpec, image: Image.Image) -> Image.Image:
    gray = ImageOps.autocontrast(image.convert("L"), cutoff=(6, 3))
    light, dark = _mix(spec.accent, WHITE, 0.6), (30, 8, 84)
    two = ImageOps.colorize(gray, black=dark, white=light, mid=_mix(spec.accent, dark, 0.35), midpoint=135)
    canvas = Image.blend(image, two, DUOTONE_SHARE[spec.weight])
    edge = round(2.4 * spec.unit)
    ImageDraw.Draw(canvas).rectangle((0, 0, canvas.width - 1, canvas.height - 1), outline=spec.accent, width=edge)
    return canvas


def _grade_pop(_: ThumbnailSpec, image: Image.Image) -> Image.Image:
    flat = ImageOps.posterize(ImageOps.autocontrast(image, cutoff=2), 4).filter(ImageFilter.MedianFilter(3))
    return ImageEnhance.Contrast(ImageEnhance.Color(flat).enhance(1.7)).enhance(1.2)


def _grade_cinema(spec: ThumbnailSpec, image: Image.Image) -> Image.Image:
    gray = image.convert("L")
    warm = ImageOps.colorize(gray, black=(0, 28, 48), mid=(150, 118, 96), white=(255, 232, 190))
    cool = ImageOps.colorize(gray, black=(20, 6, 40), mid=(96, 124, 150), white=(214, 240, 255))
    toned = Image.blend(image, cool if spec.call % 2 else warm, 0.42)
    lit = ImageEnhance.Brightness(ImageEnhance.Contrast(toned).enhance(1.15)).enhance(1.1)
    return _darken_bottom(_add_vignette(lit, strength=0.6), strength=0.75)


def _grade_glow(spec: ThumbnailSpec, image: Image.Image) -> Image.Image:
    vivid = ImageEnhance.Brightness(ImageEnhance.Color(image).enhance(1.75)).enhance(1.06)
    bloom = ImageEnhance.Brightness(vivid.filter(ImageFilter.BoxBlur(2 * spec.unit))).enhance(0.35)
    return _add_rim_light(spec, _darken_bottom(ImageChops.screen(vivid, bloom), strength=0.5))


GRADES: Mapping[str, Callable[[ThumbnailSpec, Image.Image], Image.Image]] = MappingProxyType(
    {"pkz_2": _grade_duotone, "pkz_3": _grade_pop, "pkz_4": _grade_cinema, "pkz_4_5": _grade_glow}
)


def _add_vignette(image: Image.Image, *, strength: float) -> Image.Image:
    corners = Image.radial_gradient("L").resize(image.size).point(_scale_table(strength, above=70))
    image.paste(BLACK, mask=corners)
    return image


def _darken_bottom(image: Image.Image, *, strength: float) -> Image.Image:
    """Darken the image toward the bottom edge, so that text is readable on a bright image."""
    start = image.height * 2 // 5
    shade = Image.linear_gradient("L").resize((image.width, image.height - start)).point(_scale_table(strength))
    image.paste(BLACK, (0, start, image.width, image.height), mask=shade)
    return image


def _add_rim_light(spec: ThumbnailSpec, image: Image.Image) -> Image.Image:
    """Draw a band of light in the accent color along the edges."""
    inner = Image.new("L", image.size, 255)
    band = round(2 * spec.unit)
    ImageDraw.Draw(inner).rounded_rectangle(
        (band, band, image.width - band, image.height - band), radius=4 * spec.unit, fill=0
    )
    light = inner.filter(ImageFilter.BoxBlur(5 * spec.unit)).point(_scale_table(2))
    image.paste(spec.accent, mask=light)
    image.paste(_mix(spec.accent, WHITE, 0.35), mask=inner)
    return image


def _draw_headline(spec: ThumbnailSpec, canvas: Image.Image) -> None:
    unit = spec.unit
    box = Box(6 * unit, canvas.height * 0.56, canvas.width - 6 * unit, canvas.height - 8 * unit)
    layout = typeset(spec.prompt, box=box, sizes=(20 * unit, 6.5 * unit))
    if layout is None:
        return
    if spec.model == "pkz_3":
        _draw_on_slabs(spec, canvas, layout)
    else:
        _draw_outlined(spec, canvas, layout)


def _draw_outlined(spec: ThumbnailSpec, canvas: Image.Image, layout: TextLayout) -> None:
    """Draw white text with a black outline and a shadow, and the longest word in the accent color."""
    size = layout.font.size
    outline = layout.mask(canvas.size, words=layout.words, grow=size * 0.06)
    shadow = ImageChops.offset(outline, round(size * 0.05), round(size * 0.07)).filter(ImageFilter.BoxBlur(size * 0.05))
    canvas.paste(BLACK, mask=shadow)
    canvas.paste(BLACK, mask=outline)
    canvas.paste(WHITE, mask=layout.mask(canvas.size, words=layout.words))
    canvas.paste(spec.accent, mask=layout.mask(canvas.size, words=layout.longest_word()))


def _draw_on_slabs(spec: ThumbnailSpec, canvas: Image.Image, layout: TextLayout) -> None:
    """Draw black text, each line on a slab of the accent color, all slightly tilted."""
    paper = Image.new("L", canvas.size)
    draw = ImageDraw.Draw(paper)
    pad = layout.font.size * 0.14
    for line in layout.lines:
        draw.rectangle((line.left - pad, line.top - pad, line.right + pad, line.bottom + pad), fill=255)
    ink = layout.mask(canvas.size, words=layout.words)
    center = (canvas.width / 2, layout.lines[-1].bottom)
    paper, ink = (mask.rotate(1.6, Image.Resampling.BICUBIC, center=center) for mask in (paper, ink))
    canvas.paste(BLACK, mask=ImageChops.offset(paper, round(spec.unit), round(spec.unit)))
    canvas.paste(spec.accent, mask=paper)
    canvas.paste(BLACK, mask=ink)


def _draw_inset(spec: ThumbnailSpec, canvas: Image.Image, support: Image.Image) -> None:
    """Draw the support image as a tilted print in the top right corner."""
    side, border, unit = round(34 * spec.unit), round(1.2 * spec.unit), spec.unit
    photo = ImageOps.expand(ImageOps.fit(support, (side, side), Image.Resampling.BICUBIC), border, WHITE)
    # The transparent margin lets the rotation anti-alias the edge.
    margined = ImageOps.expand(photo.convert("RGBA"), 2, (255, 255, 255, 0))
    card = margined.rotate(-5, Image.Resampling.BICUBIC, expand=True)
    place = (round(canvas.width - card.width - 4 * unit), round(4 * unit))
    shadow = Image.new("L", canvas.size)
    shadow.paste(card.getchannel("A"), (place[0] + round(unit), place[1] + round(1.5 * unit)))
    canvas.paste(BLACK, mask=shadow.filter(ImageFilter.BoxBlur(1.5 * unit)).point(_scale_table(0.7)))
    canvas.paste(card, place, card)


def _draw_badge(spec: ThumbnailSpec, canvas: Image.Image) -> None:
    font = load_font(3.4 * spec.unit)
    label = f"sandbox · {spec.model} · {spec.format}"
    pad, left, top = 1.5 * spec.unit, 4 * spec.unit, 4 * spec.unit
    right, bottom = left + font.face.getlength(label) + 5 * pad, top + font.size + 2 * pad
    middle = (top + bottom) / 2
    draw = ImageDraw.Draw(canvas, "RGBA")
    draw.rounded_rectangle((left, top, right, bottom), radius=(bottom - top) / 2, fill=(12, 12, 16, 205))
    draw.ellipse((left + pad, middle - pad * 0.7, left + 2.4 * pad, middle + pad * 0.7), fill=spec.accent)
    draw.text((left + 3.4 * pad, middle), label, fill=WHITE, font=font.face, anchor="lm", stroke_width=0.3)


def _mix(one: Color, other: Color, share: float) -> Color:
    """Blend `share` of `other` into `one`."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def _scale_table(factor: float, *, above: int = 0) -> list[int]:
    """A table for `Image.point`: each value minus `above`, times `factor`, clamped to a byte."""
    return [min(255, round(factor * max(0, value - above))) for value in range(256)]
