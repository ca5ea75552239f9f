"""Paints a thumbnail on a reference picture: one look a model, the prompt as its headline."""

import io
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter, ImageOps

from sandbox.pikzels_server.rendering.typography import Box, Lettering, type_of, typeset

SIZES: Mapping[str, tuple[int, int]] = MappingProxyType({"16:9": (1280, 720), "9:16": (720, 1280), "1:1": (1024, 1024)})
READABLE = ("JPEG", "PNG", "WEBP", "GIF")
PIXELS_MAX = 64_000_000
DRAFT = 1400
BLACK = (0, 0, 0)
WHITE = (255, 255, 255)
# Neighbours are far apart in hue, so that two calls in a row are told apart at a glance.
ACCENTS = ((255, 214, 10), (255, 45, 85), (0, 229, 255), (124, 255, 79), (255, 122, 0), (214, 112, 255))
DUOTONE_SHARE: Mapping[str, float] = MappingProxyType({"low": 1.0, "medium": 0.88, "high": 0.62})

Colour = tuple[int, int, int]


class UnreadableImage(ValueError):
    """The bytes are not a picture that can be decoded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to paint; `call` varies the accent colour and the framing."""

    model: str
    format: str
    prompt: str = ""
    weight: str = "medium"
    call: int = 0

    @property
    def accent(self) -> Colour:
        return ACCENTS[self.call % len(ACCENTS)]

    @property
    def size(self) -> tuple[int, int]:
        return SIZES[self.format]

    @property
    def unit(self) -> float:
        """A hundredth of the picture's shorter side."""
        return min(self.size) / 100


def paint(order: Order, reference: bytes, *, support: bytes | None = None) -> bytes:
    """A PNG in the order's format; raises UnreadableImage."""
    canvas = _grade(order, _framed(order, opened(reference)))
    if support is not None:
        _inset(order, canvas, opened(support))
    # The provider ignores the prompt for this one model.
    if order.model != "pkz_2":
        _headline(order, canvas)
    _badge(order, canvas)
    sink = io.BytesIO()
    canvas.save(sink, "PNG", compress_level=1)
    return sink.getvalue()


def opened(picture: bytes) -> Image.Image:
    """The picture upright and in RGB; raises UnreadableImage."""
    try:
        with Image.open(io.BytesIO(picture), formats=READABLE) as image:
            if image.width * image.height > PIXELS_MAX:
                raise UnreadableImage("too many pixels")
            # A photograph from a camera is decoded at the size needed, not at its own.
            image.draft("RGB", (DRAFT, DRAFT))
            upright = ImageOps.exif_transpose(image)
            return _flat(upright) if upright.has_transparency_data else upright.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImage from error


def _flat(image: Image.Image) -> Image.Image:
    """A picture with clear parts, laid on dark grey."""
    ground = Image.new("RGBA", image.size, (24, 24, 28, 255))
    return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")


def _framed(order: Order, image: Image.Image) -> Image.Image:
    """The picture cropped to cover the frame, a little closer and elsewhere on every call."""
    chance = random.Random(order.call)
    zoom = 1.0 + 0.07 * chance.random()
    width, height = order.size
    near = (round(width * zoom), round(height * zoom))
    # Faces sit above the middle more often than below it.
    cover = ImageOps.fit(image, near, Image.Resampling.BICUBIC, centering=(0.5, 0.22))
    left = round((near[0] - width) * chance.random())
    top = round((near[1] - height) * chance.random())
    return cover.crop((left, top, left + width, top + height))


def _grade(order: Order, image: Image.Image) -> Image.Image:
    crisp = image.filter(ImageFilter.UnsharpMask(radius=3, percent=90, threshold=2))
    return GRADES[order.model](order, crisp)


def _duotone(order: Order, image: Image.Image) -> Image.Image:
    grey = ImageOps.autocontrast(image.convert("L"), cutoff=(6, 3))
    light, dark = _mixed(order.accent, WHITE, 0.6), (30, 8, 84)
    two = ImageOps.colorize(grey, black=dark, white=light, mid=_mixed(order.accent, dark, 0.35), midpoint=135)
    canvas = Image.blend(image, two, DUOTONE_SHARE[order.weight])
    edge = round(2.4 * order.unit)
    ImageDraw.Draw(canvas).rectangle((0, 0, canvas.width - 1, canvas.height - 1), outline=order.accent, width=edge)
    return canvas


def _pop(_: Order, image: Image.Image) -> Image.Image:
    flat = ImageOps.posterize(ImageOps.autocontrast(image, cutoff=2), 4).filter(ImageFilter.MedianFilter(3))
    return ImageEnhance.Contrast(ImageEnhance.Color(flat).enhance(1.7)).enhance(1.2)


def _cinema(order: Order, image: Image.Image) -> Image.Image:
    grey = image.convert("L")
    warm = ImageOps.colorize(grey, black=(0, 28, 48), mid=(150, 118, 96), white=(255, 232, 190))
    cool = ImageOps.colorize(grey, black=(20, 6, 40), mid=(96, 124, 150), white=(214, 240, 255))
    toned = Image.blend(image, cool if order.call % 2 else warm, 0.42)
    lit = ImageEnhance.Brightness(ImageEnhance.Contrast(toned).enhance(1.15)).enhance(1.1)
    return _darkened(_vignetted(lit, strength=0.6), strength=0.75)


def _glow(order: Order, image: Image.Image) -> Image.Image:
    vivid = ImageEnhance.Brightness(ImageEnhance.Color(image).enhance(1.75)).enhance(1.06)
    bloom = ImageEnhance.Brightness(vivid.filter(ImageFilter.BoxBlur(2 * order.unit))).enhance(0.35)
    return _rimmed(order, _darkened(ImageChops.screen(vivid, bloom), strength=0.5))


GRADES: Mapping[str, Callable[[Order, Image.Image], Image.Image]] = MappingProxyType(
    {"pkz_2": _duotone, "pkz_3": _pop, "pkz_4": _cinema, "pkz_4_5": _glow}
)


def _vignetted(image: Image.Image, *, strength: float) -> Image.Image:
    corners = Image.radial_gradient("L").resize(image.size).point(_scaled(strength, above=70))
    image.paste(BLACK, mask=corners)
    return image


def _darkened(image: Image.Image, *, strength: float) -> Image.Image:
    """Darker towards the bottom edge, so that letters stand out on a bright picture."""
    start = image.height * 2 // 5
    shade = Image.linear_gradient("L").resize((image.width, image.height - start)).point(_scaled(strength))
    image.paste(BLACK, (0, start, image.width, image.height), mask=shade)
    return image


def _rimmed(order: Order, image: Image.Image) -> Image.Image:
    """A band of light in the accent colour along the edges."""
    inner = Image.new("L", image.size, 255)
    band = round(2 * order.unit)
    ImageDraw.Draw(inner).rounded_rectangle(
        (band, band, image.width - band, image.height - band), radius=4 * order.unit, fill=0
    )
    light = inner.filter(ImageFilter.BoxBlur(5 * order.unit)).point(_scaled(2))
    image.paste(order.accent, mask=light)
    image.paste(_mixed(order.accent, WHITE, 0.35), mask=inner)
    return image


def _headline(order: Order, canvas: Image.Image) -> None:
    unit = order.unit
    box = Box(6 * unit, canvas.height * 0.56, canvas.width - 6 * unit, canvas.height - 8 * unit)
    lettering = typeset(order.prompt, box=box, sizes=(20 * unit, 6.5 * unit))
    if lettering is None:
        return
    if order.model == "pkz_3":
        _slabs(order, canvas, lettering)
    else:
        _outlined(order, canvas, lettering)


def _outlined(order: Order, canvas: Image.Image, lettering: Lettering) -> None:
    """White letters with a black outline and a shadow, the longest word in the accent colour."""
    size = lettering.type.size
    outline = lettering.stencil(canvas.size, words=lettering.words, grow=size * 0.06)
    shadow = ImageChops.offset(outline, round(size * 0.05), round(size * 0.07)).filter(ImageFilter.BoxBlur(size * 0.05))
    canvas.paste(BLACK, mask=shadow)
    canvas.paste(BLACK, mask=outline)
    canvas.paste(WHITE, mask=lettering.stencil(canvas.size, words=lettering.words))
    canvas.paste(order.accent, mask=lettering.stencil(canvas.size, words=lettering.loudest()))


def _slabs(order: Order, canvas: Image.Image, lettering: Lettering) -> None:
    """Black letters on a slab of the accent colour for each line, all slightly tilted."""
    paper = Image.new("L", canvas.size)
    draw = ImageDraw.Draw(paper)
    pad = lettering.type.size * 0.14
    for line in lettering.lines:
        draw.rectangle((line.left - pad, line.top - pad, line.right + pad, line.bottom + pad), fill=255)
    ink = lettering.stencil(canvas.size, words=lettering.words)
    centre = (canvas.width / 2, lettering.lines[-1].bottom)
    paper, ink = (mask.rotate(1.6, Image.Resampling.BICUBIC, center=centre) for mask in (paper, ink))
    canvas.paste(BLACK, mask=ImageChops.offset(paper, round(order.unit), round(order.unit)))
    canvas.paste(order.accent, mask=paper)
    canvas.paste(BLACK, mask=ink)


def _inset(order: Order, canvas: Image.Image, support: Image.Image) -> None:
    """The support picture as a tilted print in the top right corner."""
    side, border, unit = round(34 * order.unit), round(1.2 * order.unit), order.unit
    photo = ImageOps.expand(ImageOps.fit(support, (side, side), Image.Resampling.BICUBIC), border, WHITE)
    # The clear margin gives the rotation something to blend the edge with.
    margined = ImageOps.expand(photo.convert("RGBA"), 2, (255, 255, 255, 0))
    card = margined.rotate(-5, Image.Resampling.BICUBIC, expand=True)
    place = (round(canvas.width - card.width - 4 * unit), round(4 * unit))
    shadow = Image.new("L", canvas.size)
    shadow.paste(card.getchannel("A"), (place[0] + round(unit), place[1] + round(1.5 * unit)))
    canvas.paste(BLACK, mask=shadow.filter(ImageFilter.BoxBlur(1.5 * unit)).point(_scaled(0.7)))
    canvas.paste(card, place, card)


def _badge(order: Order, canvas: Image.Image) -> None:
    kind = type_of(3.4 * order.unit)
    words = f"sandbox · {order.model} · {order.format}"
    pad, left, top = 1.5 * order.unit, 4 * order.unit, 4 * order.unit
    right, bottom = left + kind.font.getlength(words) + 5 * pad, top + kind.size + 2 * pad
    middle = (top + bottom) / 2
    draw = ImageDraw.Draw(canvas, "RGBA")
    draw.rounded_rectangle((left, top, right, bottom), radius=(bottom - top) / 2, fill=(12, 12, 16, 205))
    draw.ellipse((left + pad, middle - pad * 0.7, left + 2.4 * pad, middle + pad * 0.7), fill=order.accent)
    draw.text((left + 3.4 * pad, middle), words, fill=WHITE, font=kind.font, anchor="lm", stroke_width=0.3)


def _mixed(one: Colour, other: Colour, share: float) -> Colour:
    """`one` with `share` of `other` stirred in."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def _scaled(factor: float, *, above: int = 0) -> list[int]:
    """A table for `Image.point`: each value less `above`, times `factor`, kept within a byte."""
    return [min(255, round(factor * max(0, value - above))) for value in range(256)]
