"""What a process takes while something runs: memory, and bytes in files that it makes, those it has unlinked too."""

import stat
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil

_SECONDS = 0.05


class Watch:
    """Samples a process and its children twenty times a second, from `with` to its end. Linux: it reads /proc."""

    def __init__(self, pid: int, temporary: Path) -> None:
        self._process = psutil.Process(pid)
        self._temporary = temporary
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="watch", daemon=True)
        self._known = set(self._open_files())
        self._rss_before = self.peak_rss = self._rss()
        self._written_before = self._process.io_counters().write_bytes
        self._cpu_before = self._cpu()
        #: Bytes at once: in the TMPDIR, and in files opened since the beginning, whatever folder they are or were in.
        self.temp_bytes = 0
        #: What the process wrote to disks, its log included: catches a file that came and went between two samples.
        self.written_bytes = 0
        self.cpu_seconds = 0.0

    @property
    def memory_growth_mib(self) -> float:
        """Of the peak over what it was at the beginning."""
        return (self.peak_rss - self._rss_before) / 2**20

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.written_bytes = self._process.io_counters().write_bytes - self._written_before
        self.cpu_seconds = self._cpu() - self._cpu_before

    def _sample(self) -> None:
        while not self._done.wait(_SECONDS):
            self.peak_rss = max(self.peak_rss, self._rss())
            self.temp_bytes = max(self.temp_bytes, self._temp_bytes())

    def _rss(self) -> int:
        return sum(process.memory_info().rss for process in self._processes())

    def _cpu(self) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in self._processes())

    def _temp_bytes(self) -> int:
        found = dict(self._in_folder())
        found |= {file: size for file, size in self._open_files().items() if file not in self._known}
        return sum(found.values())

    def _in_folder(self) -> Iterator[tuple[tuple[int, int], int]]:
        for path in self._temporary.rglob("*"):
            # It may be gone again.
            with suppress(OSError):
                state = path.stat()
                if stat.S_ISREG(state.st_mode):
                    yield (state.st_dev, state.st_ino), state.st_size

    def _open_files(self) -> dict[tuple[int, int], int]:
        """Regular files that the processes hold open, unlinked ones too: device and inode → bytes."""
        found = {}
        for process in self._processes():
            for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
                with suppress(OSError):
                    state = descriptor.stat()
                    if stat.S_ISREG(state.st_mode):
                        found[state.st_dev, state.st_ino] = state.st_size
        return found

    def _processes(self) -> list[psutil.Process]:
        return [self._process, *self._process.children(recursive=True)]
