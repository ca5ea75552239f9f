"""Turns the chosen options into a `ThumbnailRequest`, or says which of them the provider would refuse."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import parse_qs, urlsplit

from bot.domain import image_problems
from bot.domain.errors import InvalidOption, InvalidSetting
from bot.domain.models import Format, Model, Oversized, ThumbnailRequest, Upload, Weight

if TYPE_CHECKING:
    from collections.abc import Mapping

IMAGE_BYTES = 10 * 1024 * 1024  # IMAGE_TOO_LARGE: "above 10 MB"
PROMPT_LENGTH = 3000  # maxLength of `prompt`
IMAGE_TYPES = {"image/png": "PNG", "image/jpeg": "JPEG", "image/jpg": "JPEG", "image/webp": "WebP"}
EMBEDDED = "image/*"  # an image of an embed: Discord shows it as one and says no more
STORE_ONLY = "https://stored.invalid/?ex=0"  # the address of an image that only the store has: it expired long ago
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
SUPPORT_MODELS = (Model.PKZ_4, Model.PKZ_4_5)  # allOf rule: the others refuse support_image_url
WEIGHT_MODELS = (Model.PKZ_2,)  # "Only applies to pkz_2 model"

_Choice = TypeVar("_Choice", Model, Format, Weight)
_URL = re.compile(r"https://[^\s\ufeff]+")  # U+FEFF is white space to JavaScript, whose \S the contract means
_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")


def build_request(
    *,
    image: Upload,
    model: str,
    format: str,  # noqa: A002 - the contract's own name
    prompt: str | None = None,
    reference: Upload | None = None,
    weight: str | None = None,
    persona: str | None = None,
    style: str | None = None,
    personas: Mapping[str, str] | None = None,
    styles: Mapping[str, str] | None = None,
    max_pixels: int | None = None,
) -> ThumbnailRequest:
    """Return the request; raises `InvalidOption` for the first option that would be refused.

    `personas` and `styles` are the operator's presets, name to id, and `max_pixels` their limit for one image.
    Stricter than the provider's schema in seven points: the type, size, and dimensions of an image, no control
    characters in its URL, a prompt's length in UTF-16 units, ids that are UUIDs, and no weight without pkz_2.
    """
    chosen = _member(Model, model, option="model")
    if reference is not None and chosen not in SUPPORT_MODELS:
        raise InvalidOption("reference", "wrong_model", models=SUPPORT_MODELS)
    if weight is not None and chosen not in WEIGHT_MODELS:
        raise InvalidOption("weight", "wrong_model", models=WEIGHT_MODELS)
    request = ThumbnailRequest(
        image_url=_image(image, option="image"),
        model=chosen,
        format=_member(Format, format, option="format"),
        prompt=_prompt(prompt),
        support_image_url=None if reference is None else _image(reference, option="reference"),
        image_weight=None if weight is None else _member(Weight, weight, option="weight"),
        persona=_preset(persona, personas or {}, option="persona"),
        style=_preset(style, styles or {}, option="style"),
    )
    _check_limits(request, image=image, reference=reference, max_pixels=max_pixels)
    return request


def apply_edit(
    request: ThumbnailRequest,
    *,
    model: str,
    format: str,  # noqa: A002 - the contract's own name
    prompt: str | None,
    image: Upload | None = None,
    reference: Upload | None = None,
    max_pixels: int | None = None,
) -> ThumbnailRequest:
    """`request` with the changes of a form; raises `InvalidOption`. Options that the new model lacks are dropped."""
    chosen = _member(Model, model, option="model")
    supports = chosen in SUPPORT_MODELS
    if reference is not None and not supports:
        raise InvalidOption("reference", "wrong_model", models=SUPPORT_MODELS)
    changed = replace(
        request,
        model=chosen,
        format=_member(Format, format, option="format"),
        prompt=_prompt(prompt),
        support_image_url=request.support_image_url if supports else None,
        support_hash=request.support_hash if supports else None,
        image_weight=request.image_weight if chosen in WEIGHT_MODELS else None,
    )
    if image is not None:
        changed = replace(changed, image_url=_image(image, option="image"), image_hash=None)
    if reference is not None:
        changed = replace(changed, support_image_url=_image(reference, option="reference"), support_hash=None)
    _check_limits(changed, image=image, reference=reference, max_pixels=max_pixels)
    return changed


def url_expiry(address: str) -> datetime | None:
    """When a URL of Discord's CDN stops working, as it says itself: seconds in hexadecimal, `ex=…`."""
    try:
        [seconds] = parse_qs(urlsplit(address).query).get("ex", [])
        return datetime.fromtimestamp(int(seconds, 16), UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _member(kind: type[_Choice], value: str, *, option: str) -> _Choice:
    try:
        return kind(value)
    except ValueError:
        raise InvalidOption(option, "unknown_choice", choices=tuple(kind)) from None


def _image(upload: Upload, *, option: str) -> str:
    if not _is_image(upload):
        raise InvalidOption(option, "wrong_type")
    if upload.size is not None and upload.size <= 0:
        raise InvalidOption(option, "empty")
    if not _URL.fullmatch(upload.url):
        raise InvalidOption(option, "no_address")
    return upload.url


def _check_limits(
    request: ThumbnailRequest, *, image: Upload | None, reference: Upload | None, max_pixels: int | None
) -> None:
    """The last check: whatever is too large may be replaced by a smaller copy if everything else is valid."""
    given = {"image": image, "reference": reference}
    found = {option: upload for option, upload in given.items() if upload is not None}
    problems = [_size_problem(upload, option=option, max_pixels=max_pixels) for option, upload in found.items()]
    for problem in filter(None, problems):
        problem.oversized = Oversized(request, tuple(found.values()))
        raise problem


def _size_problem(upload: Upload, *, option: str, max_pixels: int | None) -> InvalidOption | None:
    if upload.size is not None and upload.size > IMAGE_BYTES:
        return InvalidOption(option, "too_large", size=upload.size, limit=IMAGE_BYTES)
    if max_pixels is None or upload.width is None or upload.height is None:
        return None
    return image_problems.too_many_pixels(option, width=upload.width, height=upload.height, limit=max_pixels)


def _is_image(upload: Upload) -> bool:
    """Discord's content type decides; without one, the file name does. The provider checks the bytes."""
    if upload.content_type == EMBEDDED:
        return True
    if upload.content_type:
        return upload.content_type.partition(";")[0].strip().lower() in IMAGE_TYPES
    return upload.filename.lower().endswith(IMAGE_SUFFIXES)


def _prompt(text: str | None) -> str | None:
    """Flatten line breaks, which the provider's pattern refuses; nothing but white space counts as no prompt."""
    flat = " ".join((text or "").split())
    if not flat:
        return None
    # The contract's maxLength counts code points, JavaScript counts UTF-16 units: the stricter one applies.
    length = len(flat.encode("utf-16-le", "surrogatepass")) // 2
    if length > PROMPT_LENGTH:
        raise InvalidOption("prompt", "too_long", length=length, limit=PROMPT_LENGTH)
    if "http" in flat.lower():
        raise InvalidOption("prompt", "has_link")
    return flat


def _preset(value: str | None, presets: Mapping[str, str], *, option: str) -> str | None:
    text = (value or "").strip()
    if not text:
        return None
    named = {name.casefold(): identifier for name, identifier in presets.items()}
    identifier = named.get(text.casefold(), text).lower()
    if not _UUID.fullmatch(identifier):
        raise InvalidOption(option, "unknown_preset", known=bool(presets))
    return identifier


def preset_id(text: str) -> str:
    """One of the provider's ids, as it writes them; raises `InvalidSetting` for anything else."""
    identifier = text.strip().lower()
    if not _UUID.fullmatch(identifier):
        raise InvalidSetting("preset_id")
    return identifier
