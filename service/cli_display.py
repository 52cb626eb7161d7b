"""What the command line says while it works, on standard error: bars and text in a terminal, lines elsewhere."""

import sys
from typing import Protocol

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

from service.cli_inputs import clean
from storage.transcript import Segment

#: Percent between two lines.
_STEP = 10


class Display(Protocol):
    #: Segments can be read while they are found.
    shows_text: bool

    def sending(self, shown: str, sent: int, total: int) -> None:
        """Bytes; a total of 0 is not known yet."""

    def transcribing(self, shown: str, percent: float) -> None: ...

    def text(self, segment: Segment) -> None: ...

    def say(self, sentence: str) -> None:
        """To be read now and later."""

    def done(self, shown: str) -> None:
        """Nothing more will be said of its progress."""

    def close(self) -> None: ...


class Bars:
    """For a terminal."""

    shows_text = True

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._tasks: dict[tuple[str, str], TaskID] = {}
        self._progress.start()

    def sending(self, shown: str, sent: int, total: int) -> None:
        self._update("sending", shown, sent, total or None, decimal(sent))
        if sent == total:
            self._end("sending", shown)

    def transcribing(self, shown: str, percent: float) -> None:
        self._update("transcribing", shown, percent, 100, "")

    def text(self, segment: Segment) -> None:
        self._console.print(f"[dim]{_clock(segment.start):>7}[/dim] ", end="")
        self._console.print(clean(segment.text.strip()), markup=False)

    def say(self, sentence: str) -> None:
        self._console.print(clean(sentence), markup=False)

    def done(self, shown: str) -> None:
        self._end("sending", shown)
        self._end("transcribing", shown)

    def close(self) -> None:
        self._progress.stop()

    def _update(self, doing: str, shown: str, completed: float, total: float | None, note: str) -> None:
        task = self._tasks.get((doing, shown))
        if task is None:
            task = self._tasks[doing, shown] = self._progress.add_task(f"{doing} {shown}", total=total, note=note)
        self._progress.update(task, completed=completed, total=total, note=note)

    def _end(self, doing: str, shown: str) -> None:
        task = self._tasks.pop((doing, shown), None)
        if task is not None:
            self._progress.remove_task(task)


class Lines:
    """For logs and pipes: a line for each tenth."""

    shows_text = False

    def __init__(self) -> None:
        self._told: dict[tuple[str, str], int] = {}

    def sending(self, shown: str, sent: int, total: int) -> None:
        if total:
            self._tell("sent", shown, 100 * sent / total)

    def transcribing(self, shown: str, percent: float) -> None:
        self._tell("transcribed", shown, percent)

    def text(self, segment: Segment) -> None:
        pass

    def say(self, sentence: str) -> None:
        print(clean(sentence), file=sys.stderr, flush=True)  # noqa: T201  # A command speaks so.

    def done(self, shown: str) -> None:
        pass

    def close(self) -> None:
        pass

    def _tell(self, what: str, shown: str, percent: float) -> None:
        step = int(percent // _STEP * _STEP)
        if step > self._told.get((what, shown), 0):
            self._told[what, shown] = step
            self.say(f"{shown}: {step} % {what}")


class Quiet(Lines):
    """What has to be said, and no progress."""

    def _tell(self, what: str, shown: str, percent: float) -> None:
        pass


def open_display(quiet: bool) -> Display:
    if quiet:
        return Quiet()
    return Bars() if sys.stderr.isatty() else Lines()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
