"""The provider's published contract for create-from-image: the request schema and the error codes.

The patterns are JavaScript's. Where Python reads one differently (`$`, `.`, `\\s`), it is spelled out.
"""

from collections.abc import Mapping
from typing import Any

from jsonschema import Draft202012Validator

# JavaScript's \s: unlike Python's, it includes U+FEFF and excludes U+001C to U+001F and U+0085.
SPACE = r"\t\n\v\f\r \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"
ADDRESS = {"type": "string", "pattern": rf"^https://[^{SPACE}]+\Z"}
DATA_URL = {"type": "string", "pattern": r"^data:image/[a-zA-Z0-9.+-]+;base64,"}

SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "prompt": {
            "type": "string",
            "minLength": 1,
            "maxLength": 3000,
            "pattern": r"^(?![^\n\r\u2028\u2029]*[Hh][Tt][Tt][Pp])[^\n\r\u2028\u2029]+\Z",
        },
        "image_url": ADDRESS,
        "image_base64": DATA_URL,
        "support_image_url": ADDRESS,
        "support_image_base64": DATA_URL,
        "image_weight": {"type": "string", "enum": ["low", "medium", "high"]},
        "model": {"type": "string", "enum": ["pkz_2", "pkz_3", "pkz_4", "pkz_4_5"]},
        "format": {"type": "string", "enum": ["16:9", "9:16", "1:1"]},
        "persona": {"type": "string"},
        "style": {"type": "string"},
    },
    "additionalProperties": False,
    "required": ["model", "format"],
    "allOf": [
        {
            "oneOf": [
                {"required": ["image_url"], "not": {"required": ["image_base64"]}},
                {"required": ["image_base64"], "not": {"required": ["image_url"]}},
            ]
        },
        {
            "not": {
                "anyOf": [
                    {"required": ["support_image_url"], "properties": {"model": {"enum": ["pkz_2", "pkz_3"]}}},
                    {"required": ["support_image_base64"], "properties": {"model": {"enum": ["pkz_2", "pkz_3"]}}},
                ]
            }
        },
    ],
}
REQUEST = Draft202012Validator(SCHEMA)

CODES = frozenset(
    """
    VALIDATION_ERROR INVALID_PERSONA INVALID_STYLE INVALID_AMOUNT CONTENT_POLICY CANNOT_DELETE_PROCESSING
    SUPPORT_IMAGE_NOT_SUPPORTED IMAGE_TOO_LARGE MISSING_API_KEY INVALID_API_KEY_FORMAT INVALID_API_KEY API_KEY_INACTIVE
    API_KEY_DELETED INSUFFICIENT_CREDITS SMART_BALANCE_PAYMENT_FAILED API_ACCESS_NOT_ENABLED ACCOUNT_SUSPENDED NOT_FOUND
    NAME_RESERVED NAME_ALREADY_EXISTS CONFLICT GENERATION_REJECTED CANCELLED GENERATION_FAILED INVALID_IMAGE
    INTERNAL_ERROR SERVICE_UNDER_MAINTENANCE GENERATION_TIMEOUT SCORING_TIMEOUT TITLE_TIMEOUT TOO_MANY_REQUESTS
    """.split()  # noqa: SIM905 - the same layout as in the contract
)
