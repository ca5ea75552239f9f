"""Sets words in large bold type inside a box they never leave."""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice

from PIL import Image, ImageDraw, ImageFont

BOLD = 0.035
CAP_HEIGHT = 0.70
LEADING = 0.98
SPACE = 0.30
SHRINK = 0.94
ELLIPSIS = "..."

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, slots=True)
class Box:
    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top


@dataclass(frozen=True, slots=True)
class Type:
    """A size of the one typeface; `bold` is the stroke that thickens its regular weight."""

    size: float
    font: Font

    @property
    def bold(self) -> float:
        return self.size * BOLD

    @property
    def leading(self) -> float:
        return self.size * LEADING

    def advance(self, letter: str) -> float:
        return self.font.getlength(letter) + 1.6 * self.bold

    def width(self, word: str) -> float:
        return sum(map(self.advance, word))

    def line_width(self, words: Sequence[str]) -> float:
        return sum(map(self.width, words)) + SPACE * self.size * (len(words) - 1)


@dataclass(frozen=True, slots=True)
class Word:
    """A word placed with its baseline's left end at x, y."""

    text: str
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Lettering:
    """Words placed in a frame; `lines` are the boxes around each line's capitals."""

    type: Type
    words: tuple[Word, ...]
    lines: tuple[Box, ...]

    def loudest(self) -> tuple[Word, ...]:
        """The longest word, which is the one to colour."""
        return (max(self.words, key=lambda word: len(word.text)),)

    def stencil(self, frame: tuple[int, int], *, words: tuple[Word, ...], grow: float = 0.0) -> Image.Image:
        """An 8-bit mask of these words, thickened by `grow` pixels."""
        mask = Image.new("L", frame)
        draw = ImageDraw.Draw(mask)
        for word in words:
            self._draw(draw, word, stroke=self.type.bold + grow)
        return mask

    def _draw(self, draw: ImageDraw.ImageDraw, word: Word, *, stroke: float) -> None:
        places = accumulate(map(self.type.advance, word.text), initial=word.x + self.type.bold)
        for letter, x in zip(word.text, places, strict=False):
            draw.text((x, word.y), letter, fill=255, font=self.type.font, anchor="ls", stroke_width=stroke)


def typeset(text: str, *, box: Box, sizes: tuple[float, float]) -> Lettering | None:
    """The text in the largest type that fits the box, resting on its bottom; None without words.

    `sizes` are the largest and the smallest type; what the smallest cannot fit is cut.
    """
    words = capitals(text).split()
    if not words:
        return None
    for size in _sizes(*sizes):
        kind = type_of(size)
        lines = _fitting(words, kind, box=box)
        if lines is not None:
            return _placed(lines, kind, box=box)
    return _placed(_cut(words, kind, box=box), kind, box=box)


def type_of(size: float) -> Type:
    return Type(size, ImageFont.load_default(size=size))


def capitals(text: str) -> str:
    """The text in capital letters of the typeface, which has ASCII only."""
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().upper()


def _sizes(largest: float, smallest: float) -> Iterator[float]:
    size = largest
    while size > smallest:
        yield size
        size *= SHRINK
    yield smallest


def _flowed(words: Iterable[str], kind: Type, *, width: float) -> Iterator[list[str]]:
    """The words in lines, each within the width unless a single word is wider."""
    line: list[str] = []
    for word in words:
        if line and kind.line_width([*line, word]) > width:
            yield line
            line = []
        line.append(word)
    yield line


def _capacity(kind: Type, *, box: Box) -> int:
    return 1 + int((box.height - CAP_HEIGHT * kind.size) // kind.leading)


def _fitting(words: Sequence[str], kind: Type, *, box: Box) -> list[list[str]] | None:
    most = _capacity(kind, box=box)
    lines = list(islice(_flowed(words, kind, width=box.width), most + 1))
    fits = len(lines) <= most and all(kind.line_width(line) <= box.width for line in lines)
    return lines if fits else None


def _cut(words: Sequence[str], kind: Type, *, box: Box) -> list[list[str]]:
    """As many lines as the box holds; long words broken, an ellipsis for the rest."""
    most = _capacity(kind, box=box)
    pieces = (piece for word in words for piece in _broken(word, kind, width=box.width))
    lines = list(islice(_flowed(pieces, kind, width=box.width), most + 1))
    if len(lines) > most:
        last = lines[most - 1]
        while len(last) > 1 and kind.line_width([*last, ELLIPSIS]) > box.width:
            last.pop()
        last.append(ELLIPSIS)
    return lines[:most]


def _broken(word: str, kind: Type, *, width: float) -> Iterator[str]:
    # No letter is wider than the type's size, so pieces this long always fit, ellipsis included.
    length = max(1, int(width / kind.size / 1.1) - len(ELLIPSIS))
    return (word[start : start + length] for start in range(0, len(word), length))


def _placed(lines: Sequence[Sequence[str]], kind: Type, *, box: Box) -> Lettering:
    words: list[Word] = []
    boxes: list[Box] = []
    for index, line in enumerate(lines):
        y = box.bottom - kind.leading * (len(lines) - 1 - index)
        boxes.append(Box(box.left, y - CAP_HEIGHT * kind.size, box.left + kind.line_width(line), y))
        starts = accumulate((kind.width(word) + SPACE * kind.size for word in line), initial=box.left)
        words.extend(Word(word, x, y) for word, x in zip(line, starts, strict=False))
    return Lettering(kind, tuple(words), tuple(boxes))
