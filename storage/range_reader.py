"""An object as a seekable file, read through range requests: what a decoder needs, in memory that does not grow."""

import io
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

#: Bytes of the first request after a jump: a container's index is often a few small pieces far apart.
FIRST_WINDOW = 64 * 1024
#: Bytes of a request in the middle of a long read; each one doubles until here.
LAST_WINDOW = 2 * 1024 * 1024
#: A jump forward by less is reading on: what lies between costs less than another request.
NEAR = 512 * 1024
#: Windows kept: a decoder that goes to and fro between two streams of a file finds both.
WINDOWS = 4


class RangeReader(io.RawIOBase):
    """Holds at most WINDOWS windows of LAST_WINDOW bytes (8 MiB), whatever the size of the object. For one thread."""

    def __init__(self, fetch: Callable[[int, int], bytes], size: int) -> None:
        """`fetch(begin, end)` gives exactly the bytes begin to end - 1; what it raises, the reader's caller sees."""
        self._fetch = fetch
        self._size = size
        self._position = 0
        self._windows: OrderedDict[int, bytes] = OrderedDict()
        self._window_size = FIRST_WINDOW
        self._end_of_last_fetch = -NEAR
        #: How often something was fetched, and how much of it in all.
        self.requests, self.fetched_bytes = 0, 0

    @property
    def size(self) -> int:
        """Bytes of the whole object."""
        return self._size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError(f"negative position {start + offset}")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        """Fill the buffer; only at the object's end is less than its length read. A read that fails does not move."""
        target = memoryview(buffer).cast("B")
        position = self._position
        filled = 0
        while filled < len(target) and position < self._size:
            begin, window = self._window(position)
            offset = position - begin
            piece = window[offset : offset + len(target) - filled]
            target[filled : filled + len(piece)] = piece
            filled += len(piece)
            position += len(piece)
        self._position = position
        return filled

    def _window(self, position: int) -> tuple[int, bytes]:
        """Where a window that holds the position begins, and its bytes."""
        for begin, window in reversed(self._windows.items()):
            if begin <= position < begin + len(window):
                self._windows.move_to_end(begin)
                return begin, window
        reads_on = 0 <= position - self._end_of_last_fetch < NEAR
        self._window_size = min(LAST_WINDOW, 2 * self._window_size) if reads_on else FIRST_WINDOW
        end = min(self._size, position + self._window_size)
        # Make room first, so that never more than WINDOWS are held.
        while len(self._windows) >= WINDOWS:
            self._windows.popitem(last=False)
        window = self._fetch(position, end)
        self._windows[position] = window
        self._end_of_last_fetch = end
        self.requests += 1
        self.fetched_bytes += len(window)
        return position, window
