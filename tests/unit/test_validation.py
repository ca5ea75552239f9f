"""Options become a request that the provider's schema accepts, or a refusal that names the option."""

import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.domain import image_problems
from bot.domain.errors import InvalidOption
from bot.domain.models import Format, Model, ThumbnailRequest, Upload, Weight
from bot.domain.validation import EMBEDDED, IMAGE_BYTES, apply_edit, build_request, url_expiry
from bot.pikzels.create_from_image import body
from tests.support.fault_injection import seed
from tests.support.provider_contract import REQUEST

URL = "https://cdn.discordapp.com/attachments/1/2/cat.png?ex=1&is=2&hm=3"
ID = "0b5c6a3e-1d2f-4c3b-9a8d-7e6f5a4b3c2d"
PRESETS = {"Team": ID, "Broken": "no-uuid"}
EMOJI = "😀"  # one character, two UTF-16 units


def upload(**changes: Any) -> Upload:
    plain: dict[str, Any] = {"url": URL, "filename": "cat.png", "size": 2048, "content_type": "image/png"}
    return Upload(**(plain | changes))


def chosen(**changes: Any) -> ThumbnailRequest:
    plain: dict[str, Any] = {"image": upload(), "model": "pkz_4", "format": "16:9", "prompt": "a white cat"}
    return build_request(**(plain | changes))


def test_every_option_reaches_the_request() -> None:
    wanted = ThumbnailRequest(URL, Model.PKZ_4_5, Format.TALL, "a cat", "https://a/b", persona=ID, style=ID)
    options = {"model": "pkz_4_5", "format": "9:16", "prompt": "a cat", "reference": upload(url="https://a/b")}
    assert chosen(**options, persona=ID, style=ID) == wanted
    assert chosen(model="pkz_2", weight="high").image_weight is Weight.HIGH


def test_omitted_options_are_omitted_from_the_body() -> None:
    assert body(chosen(prompt=None)) == {"model": "pkz_4", "format": "16:9", "image_url": URL}


@pytest.mark.parametrize(
    ("changes", "option", "problem"),
    [
        ({"model": "pkz_5"}, "model", "unknown_choice"),
        ({"model": "PKZ_4"}, "model", "unknown_choice"),
        ({"format": "4:3"}, "format", "unknown_choice"),
        ({"model": "pkz_2", "weight": "huge"}, "weight", "unknown_choice"),
        ({"model": "pkz_3", "weight": "low"}, "weight", "wrong_model"),
        ({"model": "pkz_4_5", "weight": "medium"}, "weight", "wrong_model"),
        ({"model": "pkz_2", "reference": upload()}, "reference", "wrong_model"),
        ({"model": "pkz_3", "reference": upload()}, "reference", "wrong_model"),
        ({"reference": upload(content_type="image/gif")}, "reference", "wrong_type"),
        ({"reference": upload(size=0)}, "reference", "empty"),
        ({"image": upload(content_type="image/gif")}, "image", "wrong_type"),
        ({"image": upload(content_type="image/svg+xml")}, "image", "wrong_type"),
        ({"image": upload(content_type="text/html")}, "image", "wrong_type"),
        ({"image": upload(content_type=None, filename="cat.gif")}, "image", "wrong_type"),
        ({"image": upload(content_type=None, filename="png")}, "image", "wrong_type"),
        ({"image": upload(size=IMAGE_BYTES + 1)}, "image", "too_large"),
        ({"image": upload(width=5, height=21), "max_pixels": 104}, "image", "too_many_pixels"),
        ({"reference": upload(width=21, height=5), "max_pixels": 104}, "reference", "too_many_pixels"),
        ({"image": upload(size=0)}, "image", "empty"),
        ({"image": upload(size=-1)}, "image", "empty"),
        ({"image": upload(url="http://example.com/cat.png")}, "image", "no_address"),
        ({"image": upload(url="https://")}, "image", "no_address"),
        ({"image": upload(url="https://a b")}, "image", "no_address"),
        ({"image": upload(url=URL + "\n")}, "image", "no_address"),
        ({"image": upload(url=URL + "\ufeff")}, "image", "no_address"),
        ({"prompt": "x" * 3001}, "prompt", "too_long"),
        ({"prompt": EMOJI * 1500 + "x"}, "prompt", "too_long"),
        ({"persona": "nobody"}, "persona", "unknown_preset"),
        ({"persona": ID[:-1]}, "persona", "unknown_preset"),
        ({"persona": "Broken", "personas": PRESETS}, "persona", "unknown_preset"),
        ({"style": "{" + ID + "}"}, "style", "unknown_preset"),
    ],
)
def test_an_invalid_option_is_refused_by_name(changes: dict[str, Any], option: str, problem: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        chosen(**changes)
    assert (refused.value.option, refused.value.problem) == (option, problem)


@pytest.mark.parametrize("link", ["see https://a.b", "HTTP", "xhTtPx", "an http\nanswer"])
def test_a_prompt_with_a_link_is_refused_by_name(link: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        chosen(prompt=link)
    assert (refused.value.option, refused.value.problem) == ("prompt", "has_link")


@pytest.mark.parametrize(
    ("changes", "facts"),
    [
        ({"prompt": "x" * 3001}, {"length": 3001, "limit": 3000}),
        ({"prompt": EMOJI * 1501}, {"length": 3002, "limit": 3000}),
        ({"image": upload(size=IMAGE_BYTES + 1)}, {"size": IMAGE_BYTES + 1, "limit": IMAGE_BYTES}),
        (
            {"image": upload(width=5, height=21), "max_pixels": 104},
            {"width": 5, "height": 21, "pixels": 105, "max_pixels": 104},
        ),
        ({"format": "4:3"}, {"choices": tuple(Format)}),
        ({"model": "pkz_3", "weight": "low"}, {"models": (Model.PKZ_2,)}),
        ({"model": "pkz_3", "reference": upload()}, {"models": (Model.PKZ_4, Model.PKZ_4_5)}),
        ({"persona": "nobody"}, {"known": False}),
        ({"style": "nobody", "styles": PRESETS}, {"known": True}),
    ],
)
def test_a_refusal_carries_the_details_for_its_message(changes: dict[str, Any], facts: dict[str, object]) -> None:
    with pytest.raises(InvalidOption) as refused:
        chosen(**changes)
    assert repr(refused.value.facts) == repr(facts)  # 3001, and not 3001.0


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (None, None),
        ("", None),
        (" \n\t\u2028 ", None),
        ("  a\r\ncat\u2029white\x0b\x85now ", "a cat white now"),
        ("x" * 3000, "x" * 3000),
        (EMOJI * 1500, EMOJI * 1500),
        ("x" * 2999 + "\n" * 50, "x" * 2999),
        ("ht\ntp", "ht tp"),
    ],
)
def test_a_prompt_is_flattened_to_one_line(typed: str | None, expected: str | None) -> None:
    assert chosen(prompt=typed).prompt == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"content_type": "image/jpeg"},
        {"content_type": "image/jpg"},
        {"content_type": "IMAGE/WEBP; charset=binary"},
        {"content_type": None, "filename": "CAT.JPEG"},
        {"content_type": "", "filename": "cat.webp"},
        {"size": IMAGE_BYTES},
        {"size": 1},
    ],
)
def test_an_image_of_an_allowed_type_and_size_is_accepted(changes: dict[str, Any]) -> None:
    assert chosen(image=upload(**changes)).image_url == URL


@pytest.mark.parametrize("typed", [ID, ID.upper(), f" {ID} ", "Team", "tEAM", " team "])
def test_a_preset_is_found_by_name_or_id(typed: str) -> None:
    request = chosen(persona=typed, personas=PRESETS, style=typed, styles=PRESETS)
    assert (request.persona, request.style) == (ID, ID)


@pytest.mark.parametrize("typed", [None, "", "  "])
def test_an_empty_preset_counts_as_none(typed: str | None) -> None:
    assert chosen(persona=typed, personas=PRESETS).persona is None


# --- the options and the schema, in both directions --------------------------------------------------------------

PIECES = [
    "a cat",
    " ",
    "\n",
    "\r\n",
    "\x0b",
    "\x1c",
    "\x85",
    "\u2028",
    "http",
    "HtTp",
    "htt",
    "p",
    EMOJI,
    "`",
    "\0",
    "Ⓗ",
]
UNITS = ("x", EMOJI, "é", "x\n", "\u2028")  # repeated up to the limits, which count in different units
LENGTHS: tuple[int, ...] = (*range(1498, 1503), *range(2998, 3003))
CHARACTERS = [*range(32, 127), *range(0x80, 0x250), *range(0x1F600, 0x1F640), 0xFEFF, 0x2029, 0x200D, 0xFF54]
ADDRESSES = [URL, URL, "https://", "http://a", "https://a b", "HTTPS://a", "data:,", f"https://{EMOJI}", "https://%0a"]
ADDRESSES += [f"https://a{end}" for end in ("b", "\n", "\nb", "\x1c", "\x85b", "\ufeff", "\u2028", "\u00ad")]
SIZES = (2048, 2048, 1, IMAGE_BYTES, IMAGE_BYTES + 1, 0)
TYPES = ("image/png", "image/webp", None, "image/gif")
ODD_UPLOADS = [Upload(url, "cat.png", *facts) for url in ADDRESSES for facts in product(SIZES, TYPES)]
UPLOADS = [upload(), *ODD_UPLOADS, *[upload()] * 2 * len(ODD_UPLOADS)]
NAMES = [*[None, ID] * 6, ID.upper(), f"{ID}\n", "", " ", "Team", "x", ID.replace("0", "０"), "İ" * 36]
# Model, weight, and whether there is a reference: every combination, and the valid ones many times over.
EVERY = list(product(["pkz_2", "pkz_3", "pkz_4", "pkz_4_5", "pkz_5"], [None, "low", "medium", "high", "huge"], [0, 1]))
VALID = [("pkz_2", "low", 0), ("pkz_2", "high", 0), ("pkz_2", None, 0), ("pkz_3", None, 0), ("pkz_4_5", None, 0)]
VALID += [("pkz_4", None, 0), ("pkz_4", None, 1), ("pkz_4_5", None, 1)]


MODELS = [*EVERY, *VALID * 20]
FORMATS = [*["16:9", "9:16", "1:1"] * 5, "4:3"]


def any_choice(chance: random.Random) -> dict[str, Any]:
    model, weight, referring = chance.choice(MODELS)
    return {
        "model": model,
        "weight": weight,
        "reference": chance.choice(UPLOADS) if referring else None,
        "image": chance.choice(UPLOADS),
        "format": chance.choice(FORMATS),
        "prompt": any_prompt(chance),
        "persona": chance.choice(NAMES),
        "style": chance.choice(NAMES),
    }


def any_prompt(chance: random.Random) -> str | None:
    match chance.randrange(4):
        case 0:
            return None
        case 1:
            return "".join(chance.choices(PIECES, k=chance.randrange(5)))
        case 2:
            unit, times = chance.choice(UNITS), chance.choice(LENGTHS)
            return unit * times
        case _:
            return "".join(map(chr, chance.choices(CHARACTERS, k=chance.randrange(9))))


def any_choices(test: str, number: int) -> Iterator[tuple[dict[str, Any], random.Random]]:
    """Many choices of options, and where the chance of each test comes from."""
    chance = random.Random(seed(f"tests/unit/test_validation.py -k {test}"))  # noqa: S311 - test data, not a secret
    for _ in range(number):
        yield any_choice(chance), chance


# Fields that a body may contain and no option can set.
OTHERS: list[dict[str, Any]] = [
    *[{}] * 6,
    {"image_base64": "data:image/png;base64,AAAA"},
    {"support_image_base64": "data:image/png;base64,AAAA"},
    {"support_image_base64": "AAAA"},
    {"seed": 7},
    {"prompt": None},
]


def raw(choice: Mapping[str, Any]) -> dict[str, Any]:
    """The body that sends every choice unchanged."""
    fields = {"reference": "support_image_url", "weight": "image_weight", "image": "image_url"}
    values = {name: value.url if isinstance(value, Upload) else value for name, value in choice.items()}
    return {fields.get(name, name): value for name, value in values.items() if value is not None}


def refusal(choice: Mapping[str, Any]) -> InvalidOption | None:
    try:
        build_request(**choice)
    except InvalidOption as error:
        return error
    return None


def stricter_on_purpose(error: InvalidOption, sent: Mapping[str, Any]) -> bool:
    """The complete list of what `build_request` refuses although the schema accepts it."""
    match error.option, error.problem:
        case (("image" | "reference"), ("wrong_type" | "too_large" | "empty")):
            return True
        case "prompt", "too_long":
            return len(str(sent["prompt"]).encode("utf-16-le", "surrogatepass")) > 2 * 3000
        case (("persona" | "style"), "unknown_preset"):
            return not re.fullmatch(r"(?ai)[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", sent[error.option].strip())
        case "weight", "wrong_model":
            return bool(sent["model"] != "pkz_2")
        case (("image" | "reference"), "no_address"):
            address = sent["image_url"] if error.option == "image" else sent["support_image_url"]
            return bool(re.search(r"[\x1c-\x1f\x85]", address))
        case _:
            return False


def test_the_schema_accepts_every_accepted_request() -> None:
    accepted = 0
    for choice, _ in any_choices("accepts_every", 10_000):
        try:
            request = build_request(**choice, personas=PRESETS, styles=PRESETS)
        except InvalidOption:
            continue
        assert REQUEST.is_valid(body(request)), choice
        accepted += 1
    assert accepted > 500  # or the choices are so odd that nothing is tested


def test_options_that_the_schema_accepts_are_refused_only_for_a_listed_reason() -> None:
    valid = 0
    for choice, chance in any_choices("listed_reason", 5_000):
        others = chance.choice(OTHERS)
        sent = raw(choice) | others
        inexpressible = {"image_base64", "support_image_base64"} & sent.keys()
        if inexpressible or not REQUEST.is_valid(sent):
            continue
        assert others == {}
        refused = refusal(choice)
        assert refused is None or stricter_on_purpose(refused, sent), choice
        valid += 1
    assert valid > 250


@pytest.mark.parametrize(
    "choice",
    [
        {"image": upload(), "model": "pkz_2", "format": "1:1", "weight": "low", "prompt": "a\ncat"},
        {"image": upload(), "model": "pkz_3", "format": "1:1", "weight": "low"},
    ],
)
def test_an_option_that_has_once_been_wrong(choice: dict[str, Any]) -> None:
    refused = refusal(choice)
    if refused is None:
        assert REQUEST.is_valid(body(build_request(**choice)))
    else:
        assert stricter_on_purpose(refused, raw(choice))


# --- edited requests ----------------------------------------------------------------------------------------------

REQUESTS = st.builds(
    ThumbnailRequest,
    image_url=st.just(URL),
    model=st.sampled_from(Model),
    format=st.sampled_from(Format),
    prompt=st.none() | st.just("a cat"),
    image_hash=st.none() | st.just("0" * 64),
)
DATA_URL = "data:image/png;base64,iVBORw0KGgo="


@given(request=REQUESTS, model=st.sampled_from(Model), supported=st.booleans(), weighed=st.booleans())
def test_an_edited_request_always_fits_the_contract(
    request: ThumbnailRequest, model: Model, *, supported: bool, weighed: bool
) -> None:
    if supported and request.model in (Model.PKZ_4, Model.PKZ_4_5):
        request = replace(request, support_image_url=URL, support_hash="1" * 64)
    if weighed and request.model is Model.PKZ_2:
        request = replace(request, image_weight=Weight.LOW)
    changed = apply_edit(request, model=model, format="1:1", prompt=" two\nlines ")
    assert (changed.model, changed.format, changed.prompt) == (model, Format.SQUARE, "two lines")
    assert changed.image_hash == request.image_hash
    for sent in (changed, replace(changed, image_base64=DATA_URL), replace(changed, support_base64=_support(changed))):
        assert REQUEST.is_valid(body(sent))


def _support(request: ThumbnailRequest) -> str | None:
    return DATA_URL if request.support_image_url else None


def test_stored_bytes_replace_the_url() -> None:
    request = replace(chosen(reference=upload()), image_base64=DATA_URL, support_base64=DATA_URL)
    assert {name for name in body(request) if "image" in name} == {"image_base64", "support_image_base64"}


def test_a_new_image_replaces_the_stored_one() -> None:
    request = replace(chosen(), image_hash="0" * 64)
    changed = apply_edit(request, model="pkz_3", format="16:9", prompt="", image=upload(url="https://a/new.png"))
    assert (changed.image_url, changed.image_hash, changed.prompt) == ("https://a/new.png", None, None)
    with pytest.raises(InvalidOption, match="image"):
        apply_edit(request, model="pkz_3", format="16:9", prompt="", image=upload(content_type="text/plain"))


def test_an_edit_keeps_what_the_form_does_not_ask_for_if_the_new_model_takes_it() -> None:
    request = chosen(reference=upload(url="https://a/b"), persona=ID, style=ID)
    request = replace(request, image_hash="0" * 64, support_hash="1" * 64)
    assert apply_edit(request, model="pkz_4_5", format="1:1", prompt="x") == replace(
        request, model=Model.PKZ_4_5, format=Format.SQUARE, prompt="x"
    )
    without = apply_edit(request, model="pkz_3", format="1:1", prompt="x")
    assert (without.support_image_url, without.support_hash) == (None, None)
    weighed = chosen(model="pkz_2", weight="high")
    assert apply_edit(weighed, model="pkz_2", format="1:1", prompt="x").image_weight is Weight.HIGH
    assert apply_edit(weighed, model="pkz_3", format="1:1", prompt="x").image_weight is None


def test_a_new_reference_replaces_the_stored_one() -> None:
    request = replace(chosen(reference=upload()), support_hash="1" * 64)
    changed = apply_edit(request, model="pkz_4", format="16:9", prompt="", reference=upload(url="https://a/new.png"))
    assert (changed.support_image_url, changed.support_hash) == ("https://a/new.png", None)


@pytest.mark.parametrize(
    ("changes", "option", "problem"),
    [
        ({"model": "pkz_5"}, "model", "unknown_choice"),
        ({"format": "4:3"}, "format", "unknown_choice"),
        ({"prompt": "x" * 3001}, "prompt", "too_long"),
        ({"image": upload(size=0)}, "image", "empty"),
        ({"reference": upload(size=0)}, "reference", "empty"),
        ({"model": "pkz_3", "reference": upload()}, "reference", "wrong_model"),
    ],
)
def test_an_invalid_edit_is_refused_by_name(changes: dict[str, Any], option: str, problem: str) -> None:
    plain: dict[str, Any] = {"model": "pkz_4", "format": "16:9", "prompt": "a cat"}
    with pytest.raises(InvalidOption) as refused:
        apply_edit(chosen(), **(plain | changes))
    assert (refused.value.option, refused.value.problem) == (option, problem)
    assert refused.value.args == (option, problem)
    assert refused.value.facts.get("models") == ((Model.PKZ_4, Model.PKZ_4_5) if problem == "wrong_model" else None)


@pytest.mark.parametrize(
    ("address", "seconds"),
    [
        ("https://cdn.discordapp.com/a.png?ex=65f0a1b2&is=1&hm=2", 0x65F0A1B2),
        ("https://cdn.discordapp.com/a.png", None),
        ("https://cdn.discordapp.com/a.png?ex=", None),
        ("https://cdn.discordapp.com/a.png?ex=zz", None),
        ("https://cdn.discordapp.com/a.png?ex=1&ex=2", None),
        ("https://cdn.discordapp.com/a.png?ex=ffffffffffffffffff", None),
        ("https://[", None),
    ],
)
def test_the_expiry_is_read_from_the_url(address: str, seconds: int | None) -> None:
    assert url_expiry(address) == (None if seconds is None else datetime.fromtimestamp(seconds, UTC))


def test_an_embedded_image_is_accepted_without_type_or_size() -> None:
    request = build_request(image=upload(content_type=EMBEDDED, size=None, filename="x"), model="pkz_3", format="16:9")
    assert request.image_url == URL


@pytest.mark.parametrize(("width", "height", "limit"), [(8, 13, 104), (None, 13, 1), (8, None, 1), (8, 13, None)])
def test_dimensions_within_the_limit_or_unknown_are_accepted(
    width: int | None, height: int | None, limit: int | None
) -> None:
    image = upload(width=width, height=height)
    assert chosen(image=image, reference=image, max_pixels=limit).image_url == URL
    edited = apply_edit(chosen(), model="pkz_4", format="1:1", prompt=None, image=image, max_pixels=limit)
    assert edited.image_url == URL


def test_an_edit_refuses_an_image_with_too_many_pixels() -> None:
    for name in ("image", "reference"):
        with pytest.raises(InvalidOption) as refused:
            apply_edit(
                chosen(),
                model="pkz_4",
                format="1:1",
                prompt=None,
                max_pixels=10,
                **{name: upload(width=5, height=5)},
            )
        assert (refused.value.option, refused.value.problem) == (name, "too_many_pixels")


def test_a_stored_reason_is_understood_again() -> None:
    large = image_problems.too_many_pixels("reference", width=12_000, height=12_000, limit=50_000_000)
    for problem in (image_problems.unreadable("image"), large):
        assert problem is not None
        again = image_problems.from_reason(image_problems.not_started(problem).reason)
        assert again is not None
        assert (again.option, again.problem, again.facts) == (problem.option, problem.problem, problem.facts)
    for other in (None, "", "not_started", "not_started:cancelled", "not_started:imagepixels:image", "imageunreadable"):
        assert image_problems.from_reason(other) is None
