"""RangeReader is a file: the same bytes for any walk through it, and never more than its windows in memory."""

import io
import secrets
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.errors import StoreUnavailable
from storage.range_reader import FIRST_WINDOW, LAST_WINDOW, WINDOWS, RangeReader

pytestmark = pytest.mark.unit

CONTENT = secrets.token_bytes(1_000_003)

#: Positions where windows of a walk from the beginning begin and end, and their neighbours.
EDGES = [edge + near for edge in (0, FIRST_WINDOW, 3 * FIRST_WINDOW, 7 * FIRST_WINDOW, len(CONTENT)) for near in (0, 1)]
POSITIONS = st.one_of(st.integers(0, len(CONTENT) + 10), st.sampled_from(EDGES))
LENGTHS = st.one_of(st.integers(0, 5000), st.sampled_from([FIRST_WINDOW - 1, FIRST_WINDOW, 300_000, -1]))


def reader_of(content: bytes) -> RangeReader:
    return RangeReader(lambda begin, end: content[begin:end], len(content))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([io.SEEK_SET, io.SEEK_CUR, io.SEEK_END, None]), POSITIONS, LENGTHS)))
def test_any_walk_reads_what_a_file_reads(walk: list[tuple[int | None, int, int]]) -> None:
    reader, file = reader_of(CONTENT), io.BytesIO(CONTENT)

    for whence, position, length in walk:
        if whence is not None:
            offset = {io.SEEK_SET: position, io.SEEK_CUR: position - file.tell(), io.SEEK_END: position - len(CONTENT)}
            assert reader.seek(offset[whence], whence) == file.seek(offset[whence], whence)
        assert reader.read(length) == file.read(length)
        assert reader.tell() == file.tell()


def test_reading_past_the_end_gives_nothing() -> None:
    reader = reader_of(b"abc")

    assert reader.seek(10) == 10
    assert reader.read(5) == b""
    assert reader_of(b"").read() == b""


def test_a_position_before_the_beginning_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        reader_of(b"abc").seek(-4, io.SEEK_END)


def test_requests_grow_while_it_is_read_on_and_are_small_after_a_jump() -> None:
    asked: list[tuple[int, int]] = []
    size = 20 * 2**20

    def fetch(begin: int, end: int) -> bytes:
        asked.append((begin, end - begin))
        return bytes(end - begin)

    reader = RangeReader(fetch, size)
    while reader.tell() < 8 * 2**20:
        reader.read(4096)
    reader.seek(size - 100)
    reader.read(100)
    reader.seek(0)
    reader.read(10)

    lengths = [length for _, length in asked]
    assert lengths[:6] == [FIRST_WINDOW * 2**n for n in range(6)]
    assert max(lengths) == LAST_WINDOW
    assert asked[-2:] == [(size - 100, 100), (0, FIRST_WINDOW)]


def test_going_back_a_little_asks_for_nothing() -> None:
    asked = 0

    def fetch(begin: int, end: int) -> bytes:
        nonlocal asked
        asked += 1
        return bytes(end - begin)

    reader = RangeReader(fetch, 10 * 2**20)
    reader.read(FIRST_WINDOW)
    reader.seek(5 * 2**20)
    reader.read(100)
    reader.seek(10)
    reader.read(100)
    reader.seek(5 * 2**20 + 1000)
    reader.read(100)

    assert asked == 2


def test_memory_is_bounded_whatever_the_size() -> None:
    reader = RangeReader(lambda begin, end: bytes(end - begin), 2**40)
    tracemalloc.start()
    tracemalloc.clear_traces()

    for _ in range(100):
        for jump in range(3):
            reader.seek(jump * 2**38 + reader.tell() % 2**20)
            reader.read(100)
        for _ in range(8):
            reader.read(2**20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    # Its windows, and what one read returns, twice while it is copied.
    assert peak < WINDOWS * LAST_WINDOW + 3 * 2**20


def test_a_read_that_fails_does_not_move() -> None:
    broken = True

    def fetch(begin: int, end: int) -> bytes:
        if begin > 0 and broken:
            raise StoreUnavailable("broken")
        return CONTENT[begin:end]

    reader = RangeReader(fetch, len(CONTENT))
    reader.read(10)
    with pytest.raises(StoreUnavailable):
        reader.read(FIRST_WINDOW)
    broken = False

    assert reader.tell() == 10
    assert reader.read(FIRST_WINDOW) == CONTENT[10 : FIRST_WINDOW + 10]


def test_a_short_jump_forward_is_reading_on() -> None:
    reader = RangeReader(lambda begin, end: bytes(end - begin), 20 * 2**20)

    # A little of every 300 kB, as the sound of a video whose pictures are skipped.
    for position in range(0, reader.size, 300_000):
        reader.seek(position)
        reader.read(10_000)

    assert reader.requests < 20
    assert reader.fetched_bytes <= reader.size


def test_long_jumps_fetch_little_of_what_lies_between() -> None:
    reader = RangeReader(lambda begin, end: bytes(end - begin), 20 * 2**20)

    for position in range(0, reader.size, 2**20):
        reader.seek(position)
        reader.read(10_000)

    assert reader.requests == 20
    assert reader.fetched_bytes == 20 * FIRST_WINDOW
