"""What a server has used, added up, and said in one message."""

from __future__ import annotations

from datetime import date, timedelta

from bot.domain.models import Model
from bot.domain.usage import Usage, Used
from bot.text import admin

TODAY = date(2026, 11, 27)


def used(days_ago: int, user_id: int = 1, model: Model = Model.PKZ_4, *, images: int = 1, credits_: int = 2) -> Used:
    return Used(TODAY - timedelta(days=days_ago), user_id, model, images, credits_)


def test_the_last_days_include_today_and_no_day_more() -> None:
    usage = Usage(TODAY, [used(0), used(6), used(7)])
    assert [row.day for row in usage.last(7).rows] == [TODAY, TODAY - timedelta(days=6)]


def test_members_come_in_the_order_of_their_credits() -> None:
    usage = Usage(TODAY, [used(0, 1), used(0, 2, credits_=9), used(1, 1, images=3, credits_=3), used(2, 3)])
    assert [(user_id, part.images, part.credits) for user_id, part in usage.by_member()] == [
        (2, 1, 9),
        (1, 4, 5),
        (3, 1, 2),
    ]


def test_days_come_newest_first_and_models_by_their_images() -> None:
    usage = Usage(TODAY, [used(3), used(0, model=Model.PKZ_2), used(0, model=Model.PKZ_3, images=4)])
    assert [day for day, _ in usage.by_day()] == [TODAY, TODAY - timedelta(days=3)]
    assert usage.by_model() == [(Model.PKZ_3, 4), (Model.PKZ_2, 1), (Model.PKZ_4, 1)]


def test_however_many_members_there_are_the_text_fits_into_one_message() -> None:
    rows = [
        used(number % 30, 10**18 + number, model, images=1000, credits_=10**6)
        for number in range(200)
        for model in Model
    ]
    said = admin.usage(Usage(TODAY, rows), locale="en-US")
    assert len(said) <= 2000
    assert "more members" in said
    assert said.count("\n11-") + said.count("\n10-") == 30


def test_someone_whose_data_was_deleted_has_no_mention() -> None:
    assert "members whose data was deleted: 2 credits" in admin.usage(Usage(TODAY, [used(0, 0)]), locale="en-US")
