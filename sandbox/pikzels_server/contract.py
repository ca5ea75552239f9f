"""What POST /v2/thumbnail/image accepts, and how it refuses everything else."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

MODELS = ("pkz_2", "pkz_3", "pkz_4", "pkz_4_5")
FORMATS = ("16:9", "9:16", "1:1")
WEIGHTS = ("low", "medium", "high")
REQUIRED = ("model", "format")
SUPPORTING_MODELS = ("pkz_4", "pkz_4_5")
SUPPORT_FIELDS = ("support_image_url", "support_image_base64")
PROMPT_MAX = 3000
KEY_PREFIX = "pkz_"

# Status and public message by error code. The provider publishes the codes and the statuses.
# Its error page maps codes to statuses; the 504 of the three timeouts is inferred.
CODES: Mapping[str, tuple[int, str]] = MappingProxyType(
    {
        "VALIDATION_ERROR": (400, "The request is not valid."),
        "INVALID_PERSONA": (400, "The persona ID is not valid."),
        "INVALID_STYLE": (400, "The style ID is not valid."),
        "INVALID_AMOUNT": (400, "The amount is not valid."),
        "CONTENT_POLICY": (400, "The request violates the content policy."),
        "CANNOT_DELETE_PROCESSING": (400, "The item cannot be deleted while it is processing."),
        "SUPPORT_IMAGE_NOT_SUPPORTED": (400, "This model does not accept a support image."),
        "INVALID_IMAGE": (400, "The image could not be read."),
        "IMAGE_TOO_LARGE": (413, "The image is larger than 10 MB."),
        "MISSING_API_KEY": (401, "The API key is missing."),
        "INVALID_API_KEY_FORMAT": (401, "The API key has an invalid format."),
        "INVALID_API_KEY": (401, "The API key is not valid."),
        "API_KEY_INACTIVE": (401, "The API key is inactive."),
        "API_KEY_DELETED": (401, "The API key was deleted."),
        "INSUFFICIENT_CREDITS": (402, "The API balance is too low."),
        "SMART_BALANCE_PAYMENT_FAILED": (402, "The automatic top-up could not be paid."),
        "API_ACCESS_NOT_ENABLED": (403, "The account has no access to the API."),
        "ACCOUNT_SUSPENDED": (403, "The account is suspended."),
        "NOT_FOUND": (404, "Not found."),
        "NAME_RESERVED": (409, "The name is reserved."),
        "NAME_ALREADY_EXISTS": (409, "The name is taken."),
        "CONFLICT": (409, "The request conflicts with the current state."),
        "GENERATION_REJECTED": (422, "The request could not be processed."),
        "TOO_MANY_REQUESTS": (429, "Too many requests."),
        "CANCELLED": (499, "The generation was cancelled."),
        "GENERATION_FAILED": (500, "The generation failed."),
        "INTERNAL_ERROR": (500, "Something went wrong."),
        "SERVICE_UNDER_MAINTENANCE": (503, "The service is under maintenance."),
        "GENERATION_TIMEOUT": (504, "The generation took too long."),
        "SCORING_TIMEOUT": (504, "The scoring took too long."),
        "TITLE_TIMEOUT": (504, "The title took too long."),
    }
)

# The published patterns are JavaScript's, whose "." does not match these four characters.
LINE_ENDS = re.compile("[\n\r\u2028\u2029]")
HTTPS_URL = re.compile(r"https://\S+")
DATA_URL = re.compile(r"data:image/[a-zA-Z0-9.+-]+;base64,")
UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@dataclass(frozen=True, slots=True)
class Problem:
    """One entry of a validation error's `details`."""

    message: str
    field: str | None = None

    def entry(self) -> dict[str, str]:
        return {"message": self.message} if self.field is None else {"field": self.field, "message": self.message}


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error in the provider's format. Only VALIDATION_ERROR has `details`."""

    code: str
    details: tuple[Problem, ...] = ()

    @property
    def status(self) -> int:
        return CODES[self.code][0]

    def envelope(self, request_id: str) -> dict[str, object]:
        error: dict[str, object] = {"code": self.code, "message": CODES[self.code][1]}
        if self.details:
            error["details"] = [problem.entry() for problem in self.details]
        return {"error": error, "request_id": request_id}


class NotJson(ValueError):
    """The bytes are not JSON as defined by RFC 8259."""


def check_key(sent: str | None, *, expected: str) -> Refusal | None:
    if not sent:
        return Refusal("MISSING_API_KEY")
    if not sent.startswith(KEY_PREFIX):
        return Refusal("INVALID_API_KEY_FORMAT")
    return None if sent == expected else Refusal("INVALID_API_KEY")


def parse_json(raw: bytes) -> Any:
    """Parse the JSON value in `raw`; raises NotJson."""
    try:
        return json.loads(raw.decode("utf-8"), parse_constant=_reject_constant)
    except (ValueError, RecursionError) as error:
        raise NotJson from error


def check_body(body: object) -> Refusal | None:
    """Return the provider's refusal of this body, or None if it accepts the body."""
    if not isinstance(body, dict):
        return validation_error("must be object")
    if problems := tuple(_problems(body)):
        return Refusal("VALIDATION_ERROR", problems)
    if any(name in body for name in SUPPORT_FIELDS) and body["model"] not in SUPPORTING_MODELS:
        return Refusal("SUPPORT_IMAGE_NOT_SUPPORTED")
    for name, code in (("persona", "INVALID_PERSONA"), ("style", "INVALID_STYLE")):
        if name in body and UUID.fullmatch(body[name]) is None:
            return Refusal(code)
    return None


def validation_error(message: str, field: str | None = None) -> Refusal:
    return Refusal("VALIDATION_ERROR", (Problem(message, field),))


def _reject_constant(name: str) -> None:
    raise NotJson(name)


def _problems(body: Mapping[str, object]) -> Iterator[Problem]:
    for name in REQUIRED:
        if name not in body:
            yield Problem("is required", name)
    for name, value in body.items():
        if message := _problem_with(name, value):
            yield Problem(message, name)
    if ("image_url" in body) == ("image_base64" in body):
        yield Problem("provide either image_url or image_base64")


def _problem_with(name: str, value: object) -> str | None:
    if (check := CHECKS.get(name)) is None:
        return "is not allowed"
    return check(value) if isinstance(value, str) else "must be string"


def _one_of(*allowed: str) -> Callable[[str], str | None]:
    return lambda value: None if value in allowed else f"must be one of {', '.join(allowed)}"


def _check_prompt(value: str) -> str | None:
    if not 1 <= len(value) <= PROMPT_MAX:
        return f"must be 1 to {PROMPT_MAX} characters long"
    if LINE_ENDS.search(value):
        return "must be one line"
    return "must not contain a URL" if "http" in value.lower() else None


def _check_https_url(value: str) -> str | None:
    return None if HTTPS_URL.fullmatch(value) else "must be an HTTPS URL"


def _check_data_url(value: str) -> str | None:
    return None if DATA_URL.match(value) else "must start with data:image/<type>;base64,"


def _accept(_: str) -> None:
    return None


CHECKS: Mapping[str, Callable[[str], str | None]] = MappingProxyType(
    {
        "prompt": _check_prompt,
        "image_url": _check_https_url,
        "image_base64": _check_data_url,
        "support_image_url": _check_https_url,
        "support_image_base64": _check_data_url,
        "image_weight": _one_of(*WEIGHTS),
        "model": _one_of(*MODELS),
        "format": _one_of(*FORMATS),
        "persona": _accept,
        "style": _accept,
    }
)
