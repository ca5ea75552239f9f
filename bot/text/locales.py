"""The catalogs of other languages: English sentence to sentence, by Discord's name of the locale. None exists yet."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CATALOGS: Mapping[str, Mapping[str, str]] = MappingProxyType({})


def translator(locale: str) -> Callable[[str], str]:
    """Return the function that translates a sentence into `locale`; a missing sentence stays English."""
    catalog = CATALOGS.get(locale, {})
    return lambda sentence: catalog.get(sentence, sentence)
