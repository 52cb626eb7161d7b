"""Where the bytes come from, and what of them FFmpeg sees."""

import re
from typing import NamedTuple, Protocol

#: Bytes of the last read in which the beginning of the next part is still looked for.
_OVERLAP = 64


class Source(Protocol):
    """An open binary file: io.BytesIO, storage's RangeReader, what `open(path, "rb")` gives."""

    def read(self, size: int, /) -> bytes | None: ...
    def seek(self, offset: int, whence: int = 0, /) -> int: ...
    def tell(self) -> int: ...
    def seekable(self) -> bool: ...


class GuardedSource:
    """A source that remembers what it raises.

    FFmpeg turns an error into an end of file or into one of its own, and PyAV repeats a read for ever that raised what
    is not an Exception (a time limit, say). So the first error ends the file here and is raised by `check`.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._error: BaseException | None = None
        self._place = source.tell() if source.seekable() else 0
        self._size: int | None = None
        #: Bytes that may be read before the file seems to end; None: all of them.
        self.allowance: int | None = None

    @property
    def seekable(self) -> bool:
        return self._source.seekable()

    @property
    def size(self) -> int:
        """Bytes of the whole; 0 where the source cannot seek."""
        if self._size is None:
            self._size = self._seek(0, 2) or 0
            self._place = self._size
        return self._size

    def read_at(self, place: int, size: int) -> bytes:
        """Up to `size` bytes from a place on. A source that cannot seek is read on from where it is."""
        if self.allowance is not None:
            size = min(size, self.allowance)
            self.allowance -= size
        if place != self._place and self.seekable:
            if self._seek(place, 0) is None:
                return b""
            self._place = place
        if self._error is not None or size <= 0:
            return b""
        try:
            found = self._source.read(size) or b""
        except BaseException as error:  # noqa: BLE001 Raised again by `check`.
            self._error = error
            return b""
        self._place += len(found)
        return found

    def check(self) -> None:
        """Raise what the source raised, if it did."""
        if self._error is not None:
            raise self._error

    def _seek(self, offset: int, whence: int) -> int | None:
        if self._error is None:
            try:
                return self._source.seek(offset, whence)
            except OSError:
                return None  # The source cannot seek (there): FFmpeg goes on without where it can.
            except BaseException as error:  # noqa: BLE001 Raised again by `check`.
                self._error = error
        return None


class Following(NamedTuple):
    """How the next part begins, and the first place in the source where it may."""

    pattern: re.Pattern[bytes]
    earliest: int


class SourcePart:
    """A stretch of a source as a file of its own: PyAV's view of one container of several that were joined.

    Where a container does not say how long it is, the next one is noticed while this one is read.
    """

    def __init__(
        self, source: GuardedSource, begin: int = 0, end: int | None = None, following: Following | None = None
    ) -> None:
        """`following`: what is looked for in the bytes that are read."""
        self.source = source
        self.begin = begin
        #: Where the next part begins, once that is known.
        self.end = end
        self._following = following
        self._place = begin
        #: The last bytes that were read, and where they end.
        self._tail, self._tail_end = b"", begin

    def read(self, size: int) -> bytes:
        if self.end is not None:
            size = min(size, self.end - self._place)
        data = self.source.read_at(self._place, size) if size > 0 else b""
        if self._following is not None and data:
            data = self._up_to_the_next(data, self._following)
        self._place += len(data)
        return data

    def _up_to_the_next(self, data: bytes, following: Following) -> bytes:
        tail = self._tail if self._tail_end == self._place else b""
        joined, first = tail + data, self._place - len(tail)
        self._tail, self._tail_end = joined[-_OVERLAP:], self._place + len(data)
        found = following.pattern.search(joined, max(0, following.earliest - first))
        if found is None:
            return data
        self.end = first + found.start()
        return data[: max(0, self.end - self._place)]

    def seek(self, offset: int, whence: int = 0) -> int:
        """As a file's; -1 where there is no such place: a damaged file may ask for one before its beginning."""
        if not self.source.seekable:
            return -1
        start = (self.begin, self._place, self.begin + self.size)[whence]
        if start + offset < self.begin:
            return -1
        self._place = start + offset
        return self.tell()

    def tell(self) -> int:
        return self._place - self.begin

    def seekable(self) -> bool:
        return self.source.seekable

    def read_at(self, offset: int, size: int) -> bytes:
        """Bytes at an offset in the part, past what FFmpeg reads."""
        return self.source.read_at(self.begin + offset, size)

    @property
    def size(self) -> int:
        return (self.source.size if self.end is None else self.end) - self.begin
