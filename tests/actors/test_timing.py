"""Times that take in more than the voice, and where they go. No weights."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.audio.decode import SAMPLE_RATE
from actors.decoder import Piece
from actors.timing import Timing, at_the_voice
from actors.voice import FRAME, Span, find_speech, from_onset, without_doubt
from actors.windowed import segment_at
from actors.windows import Shape, Window, plan
from storage.transcript import Word
from tests.sounds import noise


def window(*voice: tuple[float, float]) -> Window:
    spans = tuple(Span(round(start * SAMPLE_RATE), round(end * SAMPLE_RATE)) for start, end in voice)
    return Window(0, np.zeros(10 * SAMPLE_RATE, np.float32), spans, 1500, spans)


def frames(*runs: tuple[float, float]) -> np.ndarray:
    """Probabilities of speech: so many seconds of one each."""
    return np.concatenate([np.full(round(seconds * SAMPLE_RATE / FRAME), p, np.float32) for seconds, p in runs])


def with_pauses(probabilities: np.ndarray) -> np.ndarray:
    """Decibels of frames: a voice of which every fifth is quiet."""
    return np.where(np.arange(len(probabilities)) % 5 == 0, -60.0, -20.0)


@pytest.mark.parametrize(
    ("voice", "before", "after"),
    [
        ([(3.0, 5.0)], (0.0, 7.0), (3.0, 5.0)),
        ([(3.0, 5.0)], (3.2, 4.8), (3.2, 4.8)),
        ([(0.5, 2.0), (3.0, 5.0)], (2.0, 6.0), (3.0, 5.0)),
        ([(0.5, 2.0), (3.0, 5.0)], (0.0, 6.0), (0.5, 5.0)),
        # What Silero does not take for a voice, and what it takes too little of.
        ([(3.0, 5.0)], (6.0, 8.0), (6.0, 8.0)),
        ([(3.0, 3.1)], (0.0, 4.0), (0.0, 4.0)),
    ],
)
def test_a_text_begins_and_ends_with_the_voice(
    voice: list[tuple[float, float]], before: tuple[float, float], after: tuple[float, float]
) -> None:
    timing = at_the_voice(Timing(*before), " Hello there, you.", window(*voice))

    assert (timing.start, timing.end) == after


def test_its_first_and_last_word_do_too() -> None:
    words = [Word(" Hello", 0.0, 3.4, 0.9), Word(" there,", 3.4, 3.9, 0.9), Word(" you.", 3.9, 6.0, 0.9)]

    timing = at_the_voice(Timing(0.0, 6.0, words), " Hello there, you.", window((3.0, 5.0)))

    assert (timing.start, timing.end) == (3.0, 5.0)
    assert [(word.start, word.end) for word in timing.words or []] == [(3.0, 3.4), (3.4, 3.9), (3.9, 5.0)]


def test_words_before_what_is_taken_for_the_voice_keep_their_times() -> None:
    words = [Word(" Hello", 0.0, 0.5, 0.9), Word(" there,", 0.5, 0.9, 0.9), Word(" you.", 3.9, 6.0, 0.9)]

    timing = at_the_voice(Timing(0.0, 6.0, words), " Hello there, you.", window((3.0, 5.0)))

    assert timing.start == 0.5
    assert [word.start for word in timing.words or []] == [0.5, 0.5, 3.9]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 30, width=32), min_size=8, max_size=8), st.floats(0, 4000), st.floats(0, 4030))
def test_words_lie_within_their_segment_whatever_attention_says(
    times: list[float], offset: float, latest: float
) -> None:
    start, end = sorted(times[:2])
    found = sorted(times[2:])
    words = [Word(" so", begin, stop, 0.9) for begin, stop in zip(found[::2], found[1::2], strict=True)]
    segment = segment_at(0, offset, Piece(start, end, " so so so", 0.9, words), round(latest, 3))

    if segment is None:
        assert round(offset + end, 3) <= max(round(offset + start, 3), round(latest, 3))
        return
    inside = [time for word in segment.words or [] for time in (word.start, word.end)]
    assert [segment.start, *inside, segment.end] == sorted([segment.start, *inside, segment.end])
    assert segment.start >= round(latest, 3)


def test_music_beside_speech_is_a_stretch_of_its_own() -> None:
    probabilities = frames((1, 0.1), (5, 0.6), (3, 0.97), (0.3, 0.6), (3, 0.97), (4, 0.65), (2, 0.0))

    spans = without_doubt(find_speech(probabilities), probabilities, with_pauses(probabilities))

    assert [span.doubtful for span in spans] == [True, False, True]
    assert [round(span.end / SAMPLE_RATE, 1) for span in spans] == pytest.approx([6.0, 12.3, 16.5], abs=0.5)
    assert spans[0].end == spans[1].start
    assert spans[1].end == spans[2].start


@pytest.mark.parametrize(
    "probabilities",
    [
        # A telephone's voice, of which Silero is nowhere sure; a hoarse sentence among clear ones; a soft word.
        frames((1, 0.1), (3, 0.6), (1, 0.85), (2, 0.65), (1, 0.0)),
        frames((1, 0.1), (3, 0.97), (2, 0.8), (3, 0.97), (1, 0.0)),
        frames((1, 0.1), (3, 0.97), (0.6, 0.6), (3, 0.97), (1, 0.0)),
        # First words, of which Silero is less sure than of those after them, and some that are mumbled in between.
        frames((0.1, 0.1), (1.5, 0.6), (3, 0.97), (1, 0.0)),
        frames((0.1, 0.1), (2, 0.97), (1.6, 0.66), (2, 0.97), (1, 0.0)),
    ],
)
def test_weak_speech_stays_where_it_is(probabilities: np.ndarray) -> None:
    spans = find_speech(probabilities)

    assert without_doubt(spans, probabilities, with_pauses(probabilities)) == spans


def test_nothing_is_doubtful_where_clear_speech_is_in_noise_itself() -> None:
    probabilities = frames((1, 0.1), (3, 0.97), (3, 0.6), (3, 0.97), (6, 0.6), (3, 0.97), (1, 0.0))
    spans = find_speech(probabilities)

    parts = without_doubt(spans, probabilities, with_pauses(probabilities))
    in_noise = without_doubt(spans, probabilities, np.maximum(with_pauses(probabilities), -28.0))

    assert any(part.doubtful for part in parts)
    assert in_noise == spans


def test_a_voice_begins_late_only_in_a_sound_that_goes_on() -> None:
    probabilities = frames((2, 0.1), (0.9, 0.6), (3, 0.97))
    (span,) = find_speech(probabilities)
    loud, quiet = np.full(len(probabilities), -20.0), np.where(probabilities > 0.5, -20.0, -60.0)

    assert from_onset(span, probabilities, loud).start / SAMPLE_RATE == pytest.approx(2.65, abs=0.05)
    assert from_onset(span, probabilities, quiet) == span


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 60), st.sampled_from([0.0, 0.3, 0.55, 0.7, 0.85, 0.97])), max_size=12))
def test_whatever_is_heard_stretches_are_in_order_and_lose_nothing(runs: list[tuple[int, float]]) -> None:
    probabilities = np.concatenate([np.zeros(0, np.float32), *(np.full(count, p, np.float32) for count, p in runs)])
    found = find_speech(probabilities)
    samples = noise(len(probabilities) * FRAME / SAMPLE_RATE)

    parts = without_doubt(found, probabilities, with_pauses(probabilities))
    everything = list(plan(samples, probabilities, Shape(3.0, 4.0), everything=True))

    assert all(before.end <= after.start for before, after in pairwise(parts))
    assert sum(part.end - part.start for part in parts) == sum(span.end - span.start for span in found)
    assert sum(len(window.samples) for window in everything) == len(samples)
    assert all(span.end <= len(window.samples) for window in everything for span in window.voice)


def test_everything_is_in_exactly_one_window_and_what_is_no_speech_is_doubtful() -> None:
    probabilities = frames((20, 0.0), (4, 0.97), (1, 0.0), (4, 0.97), (10, 0.0), (3, 0.97), (1, 0.0))
    samples = noise(len(probabilities) * FRAME / SAMPLE_RATE)[: len(probabilities) * FRAME]

    windows = list(plan(samples, probabilities, Shape(13.0, 15.0), everything=True))

    np.testing.assert_array_equal(np.concatenate([window.samples for window in windows]), samples)
    assert [window.doubtful for window in windows] == [True, True, False, True, False]
    assert [len(window.voice) for window in windows] == [0, 0, 2, 0, 1]
