"""One model on windows: what a batch gives when some of its windows hold no words."""

from pathlib import Path

import numpy as np
import pytest
from faster_whisper import WhisperModel

from actors.audio.decode import SAMPLE_RATE
from actors.decoder import Decoded, Decoder, Request
from actors.voice import Span
from actors.windows import Window
from tests.conftest import Sample
from tests.recordings import samples_of


@pytest.fixture(scope="module")
def decoder(weights_dir: Path) -> Decoder:
    return Decoder(WhisperModel(str(weights_dir / "base"), device="cpu", compute_type="int8"), "base")


def window(samples: np.ndarray) -> Window:
    return Window(0, samples, (Span(0, len(samples)),), 800)


def words_of(decoded: Decoded) -> str:
    return "".join(word.word for piece in decoded.pieces for word in piece.words or [])


def starts_of(decoded: Decoded) -> list[float]:
    return [word.start for piece in decoded.pieces for word in piece.words or []]


def test_windows_without_text_leave_the_word_times_of_the_others_alone(
    decoder: Decoder, speech: dict[str, list[Sample]]
) -> None:
    clip = samples_of(next(sample for sample in speech["en"] if "fox" in sample.text))
    silence = np.zeros(3 * SAMPLE_RATE, np.float32)
    requests = [Request(window(samples), "en", words=True) for samples in (silence, clip, silence, clip)]

    decoded = decoder.decode(requests)
    (alone,) = decoder.decode([requests[1]])

    assert [bool(each.pieces) for each in decoded] == [False, True, False, True]
    assert words_of(decoded[1]) == words_of(decoded[3]) == "".join(piece.text for piece in decoded[1].pieces)
    np.testing.assert_allclose(starts_of(decoded[1]), starts_of(alone), atol=0.1)


def test_a_batch_in_which_nobody_speaks_has_no_words(decoder: Decoder) -> None:
    silence = np.zeros(3 * SAMPLE_RATE, np.float32)

    decoded = decoder.decode([Request(window(silence), "en", words=True)] * 2)

    assert [each.pieces for each in decoded] == [[], []]
