"""Cutting at silence: what is in the pieces, where they begin and end, and how little is held."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.audio.decode import SAMPLE_RATE
from actors.cut import Cutter, Piece, Reading, not_reached, with_short_start
from actors.voice import FRAME


class Ear:
    """Hears speech wherever a frame is loud; carries the samples of an unfinished frame, as Silero's does."""

    def __init__(self) -> None:
        self._rest = np.zeros(0, np.float32)

    def listen(self, samples: np.ndarray) -> np.ndarray:
        joined = np.concatenate([self._rest, samples])
        whole = len(joined) // FRAME * FRAME
        self._rest = joined[whole:]
        loud: np.ndarray = np.abs(joined[:whole].reshape(-1, FRAME)).mean(axis=1) > 0.01
        return loud.astype(np.float32)


def recording(*stretches: tuple[float, float]) -> np.ndarray:
    """Seconds of sound and of the silence after it, again and again; no two samples of sound are alike."""
    random = np.random.default_rng(7)
    parts = []
    for sound, silence in stretches:
        parts.append(random.uniform(0.05, 0.5, round(sound * SAMPLE_RATE)).astype(np.float32))
        parts.append(np.zeros(round(silence * SAMPLE_RATE), np.float32))
    return np.concatenate(parts)


def pieces_of(samples: np.ndarray, target: float, most: float, block: int = 30 * SAMPLE_RATE) -> list[Piece]:
    cutter = Cutter(Ear().listen, target, most)
    found = [piece for at in range(0, len(samples), block) for piece in cutter.add(samples[at : at + block])]
    return [*found, *cutter.finish()]


def test_pieces_are_the_recordings_own_samples_and_hold_all_of_its_sound() -> None:
    samples = recording((3.3, 0.7), (9.1, 1.2), (4.0, 14.0), (7.7, 0.5), (2.0, 3.0))

    pieces = pieces_of(samples, target=10, most=20)

    left = samples.copy()
    for piece in pieces:
        assert np.array_equal(piece.samples, samples[piece.begin : piece.end])
        left[piece.begin : piece.end] = 0
    assert not left.any()
    assert all(before.end <= after.begin for before, after in itertools.pairwise(pieces))


def test_a_piece_ends_in_the_middle_of_the_first_pause_after_its_target() -> None:
    samples = recording((4, 1), (7, 1), (6, 1))

    first = pieces_of(samples, target=10, most=60)[0]

    # 4 + 1 + 7 s of sound, then a pause; it is cut as soon as it is long enough for a cut.
    assert 12.0 < first.end / SAMPLE_RATE < 12.5


def test_sound_without_a_pause_is_cut_at_its_quietest_place() -> None:
    samples = recording((50, 0))
    quiet = slice(13 * SAMPLE_RATE, round(13.4 * SAMPLE_RATE))
    samples[quiet] *= 0.3

    first = pieces_of(samples, target=10, most=16)[0]

    assert 13.0 < first.end / SAMPLE_RATE < 13.4
    assert all(len(piece.samples) <= 17 * SAMPLE_RATE for piece in pieces_of(samples, target=10, most=16))


def test_silence_is_left_out_and_not_held() -> None:
    cutter = Cutter(Ear().listen, 10, 20)

    found = [piece for _ in range(40) for piece in cutter.add(np.zeros(30 * SAMPLE_RATE, np.float32))]

    assert [*found, *cutter.finish()] == []
    assert len(cutter._held) < 33 * SAMPLE_RATE


def test_a_short_sound_after_long_silence_is_its_own_piece_with_a_little_room() -> None:
    samples = np.concatenate([np.zeros(100 * SAMPLE_RATE, np.float32), recording((2, 60))])

    (piece,) = pieces_of(samples, target=30, most=60)

    assert 97.9 < piece.begin / SAMPLE_RATE < 100
    assert 102 < piece.end / SAMPLE_RATE < 104


@settings(max_examples=25, deadline=None)
@given(block=st.integers(100, 40 * SAMPLE_RATE))
def test_the_size_of_the_blocks_makes_no_difference(block: int) -> None:
    samples = recording((5, 0.5), (8, 1), (3, 9), (6, 0.4), (9, 2))

    pieces = pieces_of(samples, 8, 14, block)

    expected = pieces_of(samples, 8, 14)
    assert [(piece.begin, piece.end) for piece in pieces] == [(piece.begin, piece.end) for piece in expected]


def test_the_first_piece_is_parted_in_a_pause_so_that_text_comes_early() -> None:
    samples = recording((9.5, 0.1), (4, 0.6), (20, 0.4), (27, 1))
    piece = Piece(3 * FRAME, samples, share=62.6)

    first, rest = with_short_start(piece)

    assert first.begin == piece.begin
    assert rest.begin == first.end
    assert 13.6 < first.end / SAMPLE_RATE - 0.096 < 14.2
    np.testing.assert_array_equal(np.concatenate([first.samples, rest.samples]), samples)
    assert first.share + rest.share == pytest.approx(62.6)
    assert first.share == pytest.approx(62.6 * len(first.samples) / len(samples))


def test_a_first_piece_that_is_short_anyhow_stays_whole() -> None:
    piece = Piece(0, recording((20, 1)))

    assert with_short_start(piece) == [piece]


def test_a_cut_with_other_settings_goes_on_where_the_known_chunks_end() -> None:
    samples = recording((9.5, 0.7), (4, 0.6), (20, 0.8), (27, 1), (12, 0.5))
    known = pieces_of(samples, 10, 20)[:2]
    reached: dict[int | None, int] = {None: known[-1].end}

    rest = list(not_reached(pieces_of(samples, 25, 40), reached))

    assert rest[0].begin == known[-1].end
    assert np.concatenate([piece.samples for piece in (*known, *rest)]).shape == samples.shape
    np.testing.assert_array_equal(np.concatenate([piece.samples for piece in (*known, *rest)]), samples)
    assert [piece.begin for piece in not_reached(pieces_of(samples, 10, 20), reached)] == [
        piece.begin for piece in pieces_of(samples, 10, 20)[2:]
    ]


def test_a_reading_tells_shares_that_add_up_to_what_was_read_and_channels_apart() -> None:
    left, right = recording((12, 1), (12, 1)), recording((1, 12), (1, 12))
    reading = Reading([np.stack([left, right])], lambda: Ear().listen, 10, 20)

    pieces = [*reading.pieces(), *reading.rest()]

    assert {piece.channel for piece in pieces} == {0, 1}
    assert reading.seconds == pytest.approx(26)
    assert sum(piece.share for piece in pieces if piece.channel == 0) == pytest.approx(13, abs=0.6)
    assert sum(piece.share for piece in pieces) <= 26
