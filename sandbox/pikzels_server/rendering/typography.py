"""Sets text in large bold type that always stays inside its box."""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice

from PIL import Image, ImageDraw, ImageFont

BOLD = 0.035
CAP_HEIGHT = 0.70
TALLEST = 0.81  # of the font size: a bar or a parenthesis rises above the capitals
LEADING = 0.98
SPACE = 0.30
SHRINK = 0.94
ELLIPSIS = "..."

Face = ImageFont.FreeTypeFont | ImageFont.ImageFont


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
class SizedFont:
    """The typeface at one size. `bold` is the stroke width that thickens its regular weight."""

    size: float
    face: Face

    @property
    def bold(self) -> float:
        return self.size * BOLD

    @property
    def leading(self) -> float:
        return self.size * LEADING

    def advance(self, letter: str) -> float:
        return self.face.getlength(letter) + 1.6 * self.bold

    def width(self, word: str) -> float:
        return sum(map(self.advance, word))

    def line_width(self, words: Sequence[str]) -> float:
        return sum(map(self.width, words)) + SPACE * self.size * (len(words) - 1)


@dataclass(frozen=True, slots=True)
class Word:
    """A word whose baseline starts at x, y."""

    text: str
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class TextLayout:
    """Words with their positions. `lines` are the boxes around the capitals of each line."""

    font: SizedFont
    words: tuple[Word, ...]
    lines: tuple[Box, ...]

    def longest_word(self) -> tuple[Word, ...]:
        """The longest word, which the painter colors."""
        return (max(self.words, key=lambda word: len(word.text)),)

    def mask(self, frame: tuple[int, int], *, words: tuple[Word, ...], grow: float = 0.0) -> Image.Image:
        """An 8-bit mask of these words, thickened by `grow` pixels."""
        mask = Image.new("L", frame)
        draw = ImageDraw.Draw(mask)
        for word in words:
            self._draw(draw, word, stroke=self.font.bold + grow)
        return mask

    def _draw(self, draw: ImageDraw.ImageDraw, word: Word, *, stroke: float) -> None:
        places = accumulate(map(self.font.advance, word.text), initial=word.x + self.font.bold)
        for letter, x in zip(word.text, places, strict=False):
            draw.text((x, word.y), letter, fill=255, font=self.font.face, anchor="ls", stroke_width=stroke)


def typeset(text: str, *, box: Box, sizes: tuple[float, float]) -> TextLayout | None:
    """Set the text in the largest size that fits the box, aligned to its bottom; None if there are no words.

    `sizes` are the largest and the smallest size. Text that does not fit at the smallest size is truncated.
    """
    words = to_capitals(text).split()
    if not words:
        return None
    for size in _size_steps(*sizes):
        font = load_font(size)
        lines = _fit(words, font, box=box)
        if lines is not None:
            return _place_lines(lines, font, box=box)
    return _place_lines(_truncate(words, font, box=box), font, box=box)


def load_font(size: float) -> SizedFont:
    return SizedFont(size, ImageFont.load_default(size=size))


def to_capitals(text: str) -> str:
    """The text in capital letters, reduced to ASCII because the typeface has nothing else."""
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().upper()


def _size_steps(largest: float, smallest: float) -> Iterator[float]:
    size = largest
    while size > smallest:
        yield size
        size *= SHRINK
    yield smallest


def _wrap(words: Iterable[str], font: SizedFont, *, width: float) -> Iterator[list[str]]:
    """Wrap the words into lines that fit the width, unless a single word is wider."""
    line: list[str] = []
    for word in words:
        if line and font.line_width([*line, word]) > width:
            yield line
            line = []
        line.append(word)
    yield line


def _capacity(font: SizedFont, *, box: Box) -> int:
    return 1 + int((box.height - TALLEST * font.size) // font.leading)


def _fit(words: Sequence[str], font: SizedFont, *, box: Box) -> list[list[str]] | None:
    max_lines = _capacity(font, box=box)
    lines = list(islice(_wrap(words, font, width=box.width), max_lines + 1))
    fits = len(lines) <= max_lines and all(font.line_width(line) <= box.width for line in lines)
    return lines if fits else None


def _truncate(words: Sequence[str], font: SizedFont, *, box: Box) -> list[list[str]]:
    """As many lines as fit the box, with long words split and an ellipsis in place of the rest."""
    max_lines = _capacity(font, box=box)
    pieces = (piece for word in words for piece in _split_word(word, font, width=box.width))
    lines = list(islice(_wrap(pieces, font, width=box.width), max_lines + 1))
    if len(lines) > max_lines:
        last = lines[max_lines - 1]
        while len(last) > 1 and font.line_width([*last, ELLIPSIS]) > box.width:
            last.pop()
        last.append(ELLIPSIS)
    return lines[:max_lines]


def _split_word(word: str, font: SizedFont, *, width: float) -> Iterator[str]:
    # No letter is wider than the font size, so pieces of this length always fit, including the ellipsis.
    length = max(1, int(width / font.size / 1.1) - len(ELLIPSIS))
    return (word[start : start + length] for start in range(0, len(word), length))


def _place_lines(lines: Sequence[Sequence[str]], font: SizedFont, *, box: Box) -> TextLayout:
    words: list[Word] = []
    boxes: list[Box] = []
    for index, line in enumerate(lines):
        y = box.bottom - font.leading * (len(lines) - 1 - index)
        boxes.append(Box(box.left, y - CAP_HEIGHT * font.size, box.left + font.line_width(line), y))
        starts = accumulate((font.width(word) + SPACE * font.size for word in line), initial=box.left)
        words.extend(Word(word, x, y) for word, x in zip(line, starts, strict=False))
    return TextLayout(font, tuple(words), tuple(boxes))
