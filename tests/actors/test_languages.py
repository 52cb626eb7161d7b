"""The table of languages against the engine's own, and the ways in which clients name them."""

import pytest
from faster_whisper.tokenizer import _LANGUAGE_CODES

from actors.languages import LANGUAGES, LanguageUnknown, parse_language


def test_the_languages_are_those_of_the_engine() -> None:
    assert set(LANGUAGES) == set(_LANGUAGE_CODES)
    assert len(LANGUAGES) == 100


def test_every_language_has_a_name_of_its_own() -> None:
    assert len(set(LANGUAGES.values())) == len(LANGUAGES)
    assert LANGUAGES["yue"] == "Cantonese"


@pytest.mark.parametrize("code", LANGUAGES)
def test_a_language_is_known_by_its_code_and_name_in_letters_of_any_case(code: str) -> None:
    name = LANGUAGES[code]
    spellings = (code, code.upper(), f" {code}\n", name, name.upper(), name.lower(), f"{code}-XX", f"{code}_XX")

    assert {parse_language(spelling) for spelling in spellings} == {code}


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ("en-US", "en"), ("en_US", "en"), ("en_US.UTF-8", "en"), ("EN-us", "en"), ("eng", "en"), ("English", "en"),
        ("English (US)", "en"), ("pt-BR", "pt"), ("es-419", "es"), ("sr-Latn-RS", "sr"), ("de-DE-1996", "de"),
        ("zh-TW", "zh"), ("zh-CN", "zh"), ("zh-Hant", "zh"), ("zh-Hans-CN", "zh"), ("zh_Hant_HK", "zh"),
        ("zh-yue", "yue"), ("zh-yue-HK", "yue"), ("yue-Hant-HK", "yue"), ("cmn", "zh"), ("cmn-Hans-CN", "zh"),
        ("iw", "he"), ("iw-IL", "he"), ("jv", "jw"), ("jav", "jw"), ("nb", "no"), ("nb-NO", "no"), ("nno", "nn"),
        ("fil", "tl"), ("fil-PH", "tl"), ("in", "id"), ("ji", "yi"), ("mo", "ro"),
        ("ger", "de"), ("deu", "de"), ("fre", "fr"), ("fra", "fr"), ("chi", "zh"), ("zho", "zh"), ("cze", "cs"),
        ("dut", "nl"), ("gre", "el"), ("per", "fa"), ("rum", "ro"), ("slo", "sk"), ("alb", "sq"), ("arm", "hy"),
        ("baq", "eu"), ("bur", "my"), ("geo", "ka"), ("ice", "is"), ("mac", "mk"), ("mao", "mi"), ("may", "ms"),
        ("tib", "bo"), ("wel", "cy"), ("haw", "haw"), ("Mandarin", "zh"), ("Castilian", "es"), ("Flemish", "nl"),
        ("Norwegian Bokmål", "no"), ("Farsi", "fa"), ("burmese", "my"), ("Haitian", "ht"),
    ],
)  # fmt: skip
def test_a_language_is_known_by_what_else_it_is_called(given: str, code: str) -> None:
    assert parse_language(given) == code


@pytest.mark.parametrize("given", ["", " ", "auto", "AUTO", "Auto ", "detect", "auto-detect", "und"])
def test_the_language_that_is_heard_may_be_asked_for(given: str) -> None:
    assert parse_language(given) is None


@pytest.mark.parametrize(
    "given",
    ["xx", "xx-US", "klingon", "e", "english please", "en-", "-en", "en--US", "en US", "de,en", "tlh", "enus",
     "en\x00", "../en", "e\u0301n", "en-toolongsubtag", "1"],
)  # fmt: skip
def test_what_is_no_language_is_unknown(given: str) -> None:
    with pytest.raises(LanguageUnknown):
        parse_language(given)


def test_no_code_is_two_languages() -> None:
    """Each language answers to its own code, whatever other codes others have."""
    assert {code: parse_language(code) for code in LANGUAGES} == {code: code for code in LANGUAGES}
