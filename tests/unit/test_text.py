"""What people read: harmless, within Discord's lengths, and always saying whether it cost anything."""

import re
import unicodedata
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bot.domain import errors
from bot.domain.models import Allowance, Circuit, Format, Limit, Model, Scope, Window
from bot.text import words
from tests.conftest import a_job
from tests.support.factories import NOON

LONG = "\U0001f600" * 3000  # as long as no prompt can be, in any way of counting
HOSTILE = st.lists(
    st.sampled_from(
        [
            "@everyone",
            "<@1>",
            "<#2>",
            "<@&3>",
            "```",
            "`",
            "https://a.b",
            "\u202e",
            "\u200b",
            "\x00",
            "\ud800",
            "\u2028",
        ]
    )
    | st.characters()
).map("".join)
MENTION = re.compile(r"@everyone|@here|<[@#]|https?://")
TOMORROW = NOON + timedelta(hours=12)
LATER = words.moment(TOMORROW)
SOON = words.moment(NOON + timedelta(seconds=1))


@given(HOSTILE)
@example("\x1b[31m\u200d\u2066\ufeff`")
def test_nothing_invisible_or_unquoting_is_left_in_a_members_words(text: str) -> None:
    kept = words.harmless(text)
    assert "`" not in kept
    assert {unicodedata.category(character) for character in kept}.isdisjoint({"Cc", "Cf", "Cs", "Zl", "Zp"})


@pytest.mark.parametrize("text", ["a white cat", "naïve 猫 กิน", "👍🏽 x > y & z", "\\*not bold\\*"])
def test_ordinary_words_stay_as_they_are(text: str) -> None:
    assert words.harmless(text) == text


@given(HOSTILE)
@example("```\n@everyone <@1> https://a.b\n```")
@example("\u200b\u202e")
def test_what_a_member_typed_stands_only_inside_the_code_block(prompt: str) -> None:
    outside = words.result(a_job(prompt=prompt)).split("```")
    assert len(outside) in (1, 3)
    assert MENTION.findall(outside[0]) == ["<@"]
    assert outside[0].startswith("<@1>")
    assert outside[2:] in ([], [""])


@pytest.mark.parametrize("prompt", [None, "", "\u200b", " \u202e "])
def test_without_visible_words_there_is_no_code_block(prompt: str | None) -> None:
    assert "```" not in words.result(a_job(prompt=prompt))


@pytest.mark.parametrize("model", list(Model))
@pytest.mark.parametrize("unit", ["x", "`", "ﷺ", "\U0001f600", "a\n"])
def test_the_longest_prompt_fits_into_a_message_and_its_description(unit: str, model: Model) -> None:
    job = a_job(prompt=unit * 3000, model=model)
    assert len(words.result(job).encode("utf-16-le")) // 2 <= words.CONTENT_LENGTH
    assert len(words.alt(job)) <= words.ALT_LENGTH
    assert words.result(job).endswith("…\n```")


def test_a_result_names_who_asked_for_what() -> None:
    told = words.result(a_job())
    assert told == "<@1> · PKZ 4 · 16:9 · 1 credit · #k3f9\n```\na cat\n```"


def test_a_description_says_what_is_to_be_seen() -> None:
    assert words.alt(a_job()) == "Thumbnail 16:9, made by PKZ 4 from the prompt: a cat"
    assert words.alt(a_job(prompt=None)) == "Thumbnail 16:9, made by PKZ 4 from the attached picture"


def test_pkz_2_says_that_it_ignores_the_prompt_wherever_it_is_at_work() -> None:
    old = a_job(model=Model.PKZ_2)
    for told in (words.queued(old, 1), words.generating(old, NOON), words.result(old)):
        assert "ignores the prompt" in told
    assert "ignores" not in words.result(a_job(model=Model.PKZ_2, prompt=None)) + words.result(a_job())


def test_a_file_name_has_nothing_of_the_prompt() -> None:
    assert words.filename(a_job(prompt="../../x"), ".png") == "thumbnail-k3f9.png"


# --- refusals and failures ----------------------------------------------------------------------------------------


def spent(scope: Scope = Scope.MEMBER, *, cost: int = 1) -> errors.QuotaSpent:
    return errors.QuotaSpent(Allowance(Limit(scope, 1, 10, Window(NOON, TOMORROW)), used=10), cost)


TOO_LARGE = {"size": 12_582_912, "limit": 10_485_760}
SAID: list[tuple[errors.Refused, str]] = [
    (errors.OptionInvalid("prompt", "has_link"), "`prompt` may not contain a link"),
    (errors.OptionInvalid("prompt", "too_long", length=3001, limit=3000), "3001 characters long; at most 3000"),
    (
        errors.OptionInvalid("image", "too_large", **TOO_LARGE),
        "`image` is 12.0 MB; the image service takes at most 10.0",
    ),
    (errors.OptionInvalid("image", "wrong_type"), "must be a PNG, JPEG or WebP picture"),
    (errors.OptionInvalid("image", "empty"), "is empty"),
    (errors.OptionInvalid("image", "no_address"), "without a usable address"),
    (errors.OptionInvalid("weight", "wrong_model", models=(Model.PKZ_2,)), "only with PKZ 2. Choose"),
    (errors.OptionInvalid("format", "unknown_choice", choices=tuple(Format)), "one of 16:9 or 9:16 or 1:1"),
    (errors.OptionInvalid("persona", "unknown_preset", known=True), "neither a name this server knows"),
    (errors.OptionInvalid("persona", "unknown_preset", known=False), "this bot has no named ones"),
    (spent(), f"You have used 10 of 10 credits for today. More {LATER}."),
    (spent(Scope.GUILD, cost=2), "This server has used 10 of 10 credits for today and this costs 2."),
    (errors.QueueFull(100), "100 requests are waiting"),
    (errors.MemberBusy(1), "One of your requests is still under way"),
    (errors.MemberBusy(3), "3 of your requests are still under way"),
    (errors.AlreadyTaken(), "not taken"),
    (errors.CircuitOpen(Circuit.BALANCE, None), "run out of image credits"),
    (errors.CircuitOpen(Circuit.MAINTENANCE, TOMORROW), f"under maintenance. Try again {LATER}."),
    (errors.CircuitOpen(Circuit.FAILURES, NOON - timedelta(days=1)), f"Try again {SOON}."),
    (errors.Restarting(), "restarting"),
]


@pytest.mark.parametrize(("refusal", "said"), SAID, ids=lambda value: str(value)[:30])
def test_a_refusal_says_why_and_ends_with_saying_that_nothing_was_charged(refusal: errors.Refused, said: str) -> None:
    told = words.refusal(refusal, now=NOON)
    assert said in told
    assert told.endswith(". You were not charged.")
    assert not re.search(r"[{}]|None", told)


def test_every_problem_of_an_option_has_been_said_here() -> None:
    assert {refusal.problem for refusal, _ in SAID if isinstance(refusal, errors.OptionInvalid)} == set(
        words.OPTION_PROBLEMS
    )


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("provider_refused:CONTENT_POLICY", words.PROVIDER["CONTENT_POLICY"]),
        ("provider_refused:@everyone <b>", "The image service refused this request."),
        ("provider_refused", "The image service refused this request."),
        ("not_started:balance", "This request was not started."),
        ("not_started:restarting", "restarted before this was started"),
        ("not_started", "not started"),
        ("outcome_unknown", "lost contact"),
        ("a_kind_of_some_later_version:x", "Something went wrong. Try again."),
        ("", "Something went wrong. Try again."),
        (None, "Something went wrong. Try again."),
    ],
)
def test_a_failure_says_what_happened_and_that_nothing_was_charged(reason: str | None, said: str) -> None:
    told = words.failure(a_job(reason=reason))
    assert said in told
    assert told.endswith(" You were not charged. · #k3f9")


@given(st.text(min_size=4, max_size=40))
def test_the_words_of_others_are_never_echoed(foreign: str) -> None:
    marked = f"«{foreign}»"
    reasons = (f"provider_refused:{marked}", f"not_started:{marked}", f"undeliverable:{marked}", f"{marked}:{marked}")
    assert not any("«" in words.failure(a_job(reason=reason)) for reason in reasons)


def test_the_operator_gets_what_is_needed_to_settle_it_with_the_provider() -> None:
    refused = errors.ProviderRefused("INTERNAL_ERROR", 500, request_id="18b2ad5e", fields=("image_url",))
    told = words.operator(refused)
    assert told == "provider_refused (code=INTERNAL_ERROR, status=500, request_id=18b2ad5e, fields=('image_url',))"
    assert words.operator(errors.NotStarted(errors.Restarting())) == "not_started:restarting"


# --- small parts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "said"),
    [
        *[(0, "0th"), (1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (10, "10th"), (11, "11th"), (12, "12th")],
        *[(13, "13th"), (21, "21st"), (22, "22nd"), (101, "101st"), (111, "111th"), (112, "112th"), (1013, "1013th")],
    ],
)
def test_places_are_counted_the_english_way(number: int, said: str) -> None:
    assert words.ordinal(number) == said


def test_a_place_in_the_queue_is_said_in_words() -> None:
    assert words.queued(a_job(), 1) == "Queued · #k3f9 · next in line"
    assert words.queued(a_job(), 22) == "Queued · #k3f9 · 22nd in line"


def test_a_moment_is_shown_in_each_readers_own_time() -> None:
    assert words.moment(datetime(2023, 11, 14, 22, 13, 20, 999, tzinfo=UTC)) == "<t:1700000000:R>"


@given(st.text(), st.integers(1, 50))
def test_what_is_shortened_fits_and_says_so(text: str, length: int) -> None:
    shown = words.shortened(text, length)
    assert len(shown) <= length
    assert shown == text or shown.endswith("…")


def test_allowances_end_with_the_one_that_binds() -> None:
    window = Window(NOON, TOMORROW)
    mine, ours = Limit(Scope.MEMBER, 1, 10, window), Limit(Scope.GUILD, 2, 50, window)
    assert words.allowances([Allowance(mine, 9), Allowance(ours, 0)]).splitlines() == [
        "This server, today: 0 of 50 credits used, **50 left**.",
        f"You, today: 9 of 10 credits used, **1 left**. All 10 again {LATER}.",
    ]
