"""Word errors and repeated phrases: both texts as Whisper's authors normalise them for their own tables."""

from collections.abc import Iterable, Sequence

import jiwer
import msgspec
from whisper_normalizer.basic import BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer

_ENGLISH = EnglishTextNormalizer()
_SPACED = BasicTextNormalizer(remove_diacritics=True)
#: Written without spaces: each character counts as a word.
_UNSPACED_LANGUAGES = ("ja", "zh")
_UNSPACED = BasicTextNormalizer(split_letters=True)

#: Words in a phrase that counts when it is said twice running.
_PHRASE = 6
_LONGEST_PHRASE = 60


class WordErrors(msgspec.Struct, frozen=True):
    #: Substituted, left out and added ones.
    errors: int
    #: Of the reference.
    words: int

    @property
    def percent(self) -> float:
        return 100 * self.errors / max(1, self.words)


def normal_words(text: str, language: str = "en") -> list[str]:
    if language == "en":
        return list(_ENGLISH(text).split())
    return list((_UNSPACED if language in _UNSPACED_LANGUAGES else _SPACED)(text).split())


def word_errors(reference: str, heard: str, language: str = "en") -> WordErrors:
    expected, found = normal_words(reference, language), normal_words(heard, language)
    if not expected or not found:
        return WordErrors(len(expected) + len(found), len(expected))
    counted = jiwer.process_words(" ".join(expected), " ".join(found))
    return WordErrors(counted.substitutions + counted.deletions + counted.insertions, len(expected))


def summed(counted: Iterable[WordErrors]) -> WordErrors:
    """Long texts weigh more than short ones."""
    every = list(counted)
    return WordErrors(sum(one.errors for one in every), sum(one.words for one in every))


def repeated_phrases(reference: str, heard: str, language: str = "en") -> list[str]:
    """Phrases of six words or more that are heard twice running, or oftener, and are not so in the reference."""
    said = {tuple(phrase) for _, phrase in _twice_running(normal_words(reference, language))}
    return [
        " ".join(phrase) for _, phrase in _twice_running(normal_words(heard, language)) if tuple(phrase) not in said
    ]


def _twice_running(words: Sequence[str]) -> list[tuple[int, Sequence[str]]]:
    """Where, and which phrase; what is said a third time belongs to the first two."""
    found: list[tuple[int, Sequence[str]]] = []
    at = 0
    while at < len(words):
        for length in range(_PHRASE, min(_LONGEST_PHRASE, (len(words) - at) // 2) + 1):
            phrase = words[at : at + length]
            if words[at + length : at + 2 * length] == phrase:
                found.append((at, phrase))
                while words[at + length : at + 2 * length] == phrase:
                    at += length
                at += length - 1
                break
        at += 1
    return found
