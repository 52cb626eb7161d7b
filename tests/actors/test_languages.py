"""The table of languages against the engine's own."""

from faster_whisper.tokenizer import _LANGUAGE_CODES

from actors.languages import LANGUAGES


def test_the_languages_are_those_of_the_engine() -> None:
    assert set(LANGUAGES) == set(_LANGUAGE_CODES)
    assert len(LANGUAGES) == 100


def test_every_language_has_a_name_of_its_own() -> None:
    assert len(set(LANGUAGES.values())) == len(LANGUAGES)
    assert LANGUAGES["yue"] == "Cantonese"
