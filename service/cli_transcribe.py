"""`bucketscribe transcribe`: recordings are sent one after another, and followed in that order while more are sent."""

import io
import queue
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec

from service.cli_display import Display
from service.cli_exits import Exit, exit_of
from service.cli_inputs import STDIN, Input
from service.client import Client, write_whole
from service.client_errors import ClientError, RequestRefused, Stopped, raise_unless_completed
from service.client_types import Format, Job, Option

#: How long an upload that is told to stop may take to do so.
_STOP_SECONDS = 2.0


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted of every recording."""

    format: Format
    options: dict[str, Option]
    #: Only of standard input, or of a single recording: what it is called.
    filename: str | None
    #: False: say the job's id and go.
    wait: bool


class Run:
    """One run of the command."""

    def __init__(self, client: Client, display: Display, wish: Wish) -> None:
        self._client = client
        self._display = display
        self._wish = wish
        self._stop = threading.Event()
        self._sent: queue.SimpleQueue[Job | Exception] = queue.SimpleQueue()
        #: What is being sent, and the jobs that are not final as far as we know; the sender's thread writes here, too.
        self._sending: Input | None = None
        self._open: dict[str, Input] = {}
        self._worst = Exit.OK

    def run(self, inputs: Sequence[Input], outputs: Sequence[Path | None]) -> Exit:
        """The exit code. Ctrl-C ends it: what was sent is kept for the next run, the jobs are asked about."""
        sender = threading.Thread(target=self._send_all, args=(inputs,), daemon=True)
        sender.start()
        several = len(inputs) > 1
        try:
            for one, output in zip(inputs, outputs, strict=True):
                if not self._finish(one, output, several):
                    break
        except KeyboardInterrupt:
            self._stop.set()
            self._display.close()
            sender.join(_STOP_SECONDS)
            self._interrupted()
            return Exit.INTERRUPTED
        finally:
            self._stop.set()
        return self._worst

    def _send_all(self, inputs: Sequence[Input]) -> None:
        for one in inputs:
            if self._stop.is_set():
                return
            self._sending = one
            try:
                job = self._send(one)
            except Exception as error:  # noqa: BLE001  # It is raised where it is waited for, in the main thread.
                if not isinstance(error, Stopped):
                    self._sending = None
                self._sent.put(error)
            else:
                self._open[job.job_id] = one
                self._sending = None
                self._sent.put(job)

    def _send(self, one: Input) -> Job:
        return self._client.submit(
            # Without Python's buffer, whose lock would be held at the end by a thread that still reads.
            io.FileIO(sys.stdin.fileno(), closefd=False) if one.source == STDIN else one.source,
            filename=self._wish.filename,
            on_upload=lambda sent, total: self._display.sending(one.shown, sent, total),
            join=self._wish.wait,
            stop=self._stop,
            **self._wish.options,
        )

    def _finish(self, one: Input, output: Path | None, several: bool) -> bool:
        """False: there is no use in going on with the others."""
        sent = self._sent.get()
        try:
            if isinstance(sent, Exception):
                raise sent
            if self._wish.wait:
                if several and self._display.shows_text:
                    self._display.say(f"==> {one.shown} <==")
                self._follow(one, sent)
                self._deliver(one, sent.job_id, output, several)
            else:
                print(sent.job_id, flush=True)  # noqa: T201  # The result of this command.
        except ClientError as error:
            code = exit_of(error)
            self._display.say(f"{one.shown}: {error.detail} ({error.code})")
            self._worst = max(self._worst, code)
            return code is Exit.FAILED
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise
            self._display.say(f"{one.shown}: {error}")
            self._worst = max(self._worst, Exit.FAILED)
        finally:
            self._display.done(one.shown)
        return True

    def _follow(self, one: Input, job: Job) -> None:
        self._display.transcribing(one.shown, job.progress)
        for event in self._client.events(job.job_id):
            if event.segment is not None:
                self._display.text(event.segment)
            if event.progress is not None:
                self._display.transcribing(one.shown, event.progress)
        self._open.pop(job.job_id, None)
        job = self._client.job(job.job_id, include="")
        if job.status != "completed":
            self._forget(one)
        raise_unless_completed(job)
        for warning in job.warnings:
            self._display.say(f"{one.shown}: {warning}")

    def _deliver(self, one: Input, job_id: str, output: Path | None, several: bool) -> None:
        content = self._client.transcript(job_id, self._wish.format)
        if output is not None:
            output.parent.mkdir(parents=True, exist_ok=True)
            write_whole(output, content)
            self._display.say(f"{one.shown} → {output}")
        elif not (self._display.shows_text and self._wish.format == "text" and sys.stdout.isatty()):
            heading = f"==> {one.shown} <==\n".encode() if several else b""
            sys.stdout.buffer.write(heading + content)
            sys.stdout.buffer.flush()
        self._forget(one)

    def _forget(self, one: Input) -> None:
        if one.source != STDIN:
            self._client.forget(one.source, **self._wish.options)

    def _interrupted(self) -> None:
        if self._sending is not None and isinstance(self._sending.source, Path):
            self._display.say(f"{self._sending.shown}: interrupted; the same command goes on with what is missing")
        jobs = dict(self._open)
        if not jobs or not self._wish.wait:
            return
        if not _agrees_to_cancel(len(jobs)):
            self._display.say(f"still at work: `status --wait {' '.join(jobs)}` waits for the end")
            return
        for job_id, one in jobs.items():
            try:
                self._client.cancel(job_id)
                self._display.say(f"{one.shown}: job {job_id} cancelled")
            except RequestRefused as error:
                self._display.say(f"{one.shown}: {error.detail}")
            self._forget(one)


def _agrees_to_cancel(count: int) -> bool:
    """Where nobody can be asked, what nobody waits for is cancelled. Ctrl-C and Ctrl-D are no answer, so: no."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return True
    jobs = "the job" if count == 1 else f"the {count} jobs"
    print(f"\nCancel {jobs}, too? The work goes on otherwise. [y/N] ", end="", file=sys.stderr, flush=True)  # noqa: T201
    try:
        return sys.stdin.readline().strip().lower() in ("y", "yes")
    except KeyboardInterrupt:
        print(file=sys.stderr)  # noqa: T201  # What is said next has a line of its own.
        return False
