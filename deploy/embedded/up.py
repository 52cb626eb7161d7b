"""`scripts/up`: start the stack under supervisord, prove it with a sample recording, and stay until told to stop."""

import argparse
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from deploy.embedded.demo import DemoFailed, transcribe
from deploy.embedded.parts import ProgramMissing, SocketTaken
from deploy.embedded.programs import supervisor_ini
from deploy.embedded.running import redis_answers, store_answers
from deploy.embedded.stack import Stack, StackRefused, check_ports, close_to_others, lock, plan, remember
from deploy.embedded.with_parent import tied_to_parent
from deploy.environment import ROOT, merged, read_file
from storage.settings import SettingsError

READY_SECONDS = 180
#: A part that ends so often before it is ready will not be ready the next time either.
MOST_ENDS = 3
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StackFailed(Exception):
    """A part did not start or did not go on, or the sample's transcript is wrong; the message says what happened."""


class Stopped(BaseException):
    """A signal asked for the end."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/up", description="Run the whole stack on this machine.")
    parser.add_argument("--check", action="store_true", help="transcribe the sample, compare it with its text and stop")
    arguments = parser.parse_args()
    for wanted in _SIGNALS:
        signal.signal(wanted, _stop)
    # For the programs, too: supervisord sets its own setting only when it runs as a daemon.
    os.umask(0o077)
    try:
        run(check=arguments.check)
    except (StackRefused, StackFailed, SettingsError, DemoFailed, ProgramMissing, SocketTaken) as error:
        print(f"✗ {error}", file=sys.stderr)
        return 1
    except Stopped:
        return 130
    return 0


def run(*, check: bool) -> None:
    """Returns when the stack has stopped: after the sample with `check`, else on a signal once it was ready."""
    stack = plan(merged(dict(os.environ), read_file(ROOT / ".env")))
    say("data", str(stack.folder))
    with lock(stack.folder) as lock_file:
        check_ports(stack)
        close_to_others(stack.folder)
        remember(stack)
        fetch_weights(stack)
        with supervised(stack, lock_file.fileno()) as supervisor:
            wait_until_ready(stack, supervisor)
            recording = sample()
            if check:
                compare(show_sample(stack, recording), recording.with_suffix(".txt").read_text())
                return
            try:
                show_sample(stack, recording)
            except DemoFailed as error:
                # Settings may refuse it, or many jobs wait before it: the stack is ready for all others.
                print(f"⚠ the sample was not transcribed: {error}", file=sys.stderr)
            show_links(stack)
            stay(stack, supervisor)


def fetch_weights(stack: Stack) -> None:
    model = stack.storage.default_model
    say("weights", f"{model} in {stack.storage.model_dir}")
    command = [sys.executable, str(ROOT / "scripts/download_models.py"), "--model", model]
    command += ["--model-dir", stack.storage.model_dir]
    done = subprocess.run(
        command, cwd=ROOT, env=stack.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise StackFailed(f"no weights of {model}:\n{done.stdout}{done.stderr}")


@contextmanager
def supervised(stack: Stack, lock_file: int) -> Iterator[subprocess.Popen[bytes]]:
    """The four programs under supervisord; all of them have ended when this does."""
    ini = stack.folder / "supervisord.ini"
    ini.write_text(supervisor_ini(stack.parts(), stack.stop_seconds, stack.logs))
    # Should this process be killed, supervisord gets SIGTERM and stops the others in order; if it is killed, they die.
    supervisor = subprocess.Popen(
        tied_to_parent("TERM", [sys.executable, "-m", "supervisor.supervisord", "-n", "-c", str(ini)]),
        cwd=stack.folder,
        env=stack.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[lock_file],
        # Ctrl-C in a terminal reaches this process alone, which then stops the others in order.
        start_new_session=True,
    )
    try:
        yield supervisor
    finally:
        for wanted in _SIGNALS:
            signal.signal(wanted, signal.SIG_IGN)
        say("stopping", "API, worker, store, Redis")
        supervisor.terminate()
        try:
            supervisor.wait(sum(stack.stop_seconds.values()) + 10)
        except subprocess.TimeoutExpired:
            # Its programs are tied to it.
            supervisor.kill()
            supervisor.wait()


def wait_until_ready(stack: Stack, supervisor: subprocess.Popen[bytes]) -> None:
    """
    Raises:
        StackFailed: one did not answer in READY_SECONDS, one ended again and again, or the supervisor ended.
    """
    questions: list[tuple[str, Callable[[], bool]]] = [
        ("redis", lambda: redis_answers(stack.stack.redis_port, stack.stack.redis_password)),
        ("store", lambda: store_answers(stack.stack.s3_port)),
        ("api", lambda: _ok(f"{stack.api}/health/ready")),
        ("worker", lambda: _ok(f"{stack.api}/health/async")),
    ]
    started = time.monotonic()
    for name, ready in questions:
        while not ready():
            if supervisor.poll() is not None:
                raise StackFailed(
                    f"supervisord ended with {supervisor.returncode}:\n{_last_lines(stack, 'supervisord')}"
                )
            for part, count in ends(stack, supervisor.pid).items():
                if count >= MOST_ENDS:
                    raise StackFailed(f"{part} ended {count} times: {_last_lines(stack, part, 1)}")
            if time.monotonic() > started + READY_SECONDS:
                raise StackFailed(f"{name} was not ready in {READY_SECONDS} s:\n{_last_lines(stack, name)}")
            time.sleep(0.1)
        say(name, f"ready after {time.monotonic() - started:.1f} s")


def ends(stack: Stack, supervisor_pid: int) -> Counter[str]:
    """Part → how often it ended since the supervisor started, as the supervisor's log tells."""
    log = stack.logs / "supervisord.log"
    text = log.read_text(errors="replace") if log.exists() else ""
    # The log goes on from run to run.
    ours = text.rpartition(f"supervisord started with pid {supervisor_pid}\n")
    return Counter(re.findall(r" exited: (\w+) \(", ours[2])) if ours[1] else Counter()


def sample() -> Path:
    recordings = sorted(path for path in (ROOT / "deploy/sample").glob("*") if path.suffix not in (".md", ".txt"))
    if not recordings:
        raise StackFailed("deploy/sample holds no recording")
    return recordings[0]


def show_sample(stack: Stack, recording: Path) -> str:
    """Transcribe it and print what comes of it; returns its text."""
    say("sample", f"{recording.relative_to(ROOT)}, put straight into the bucket with a presigned link")
    started = time.monotonic()
    key = stack.service.api_keys.split(",")[0].strip()
    job = transcribe(stack.api, recording, key)
    result = job["result"]
    print(f"\n{_subtitles(result)}\n")
    say("transcribed", f"{result['duration']:.1f} s of {result['language']} in {time.monotonic() - started:.1f} s")
    say("subtitles", job["files"]["srt"]["url"])
    say("all of it", f"{stack.api}/api/v1/status/{job['job_id']}")
    return str(result["text"])


def compare(transcribed: str, spoken: str) -> None:
    """
    Raises:
        StackFailed: they differ in more than case and punctuation.
    """
    if _words(transcribed) != _words(spoken):
        raise StackFailed(f"the sample says\n  {spoken.strip()}\nand not\n  {transcribed.strip()}")


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def show_links(stack: Stack) -> None:
    print()
    say("API", stack.api)
    say("try it", f"{stack.api}/docs")
    say("S3", f"{stack.storage.s3_endpoint_url}, bucket {stack.storage.s3_bucket}")
    say("logs", str(stack.logs))
    say("stop", "Ctrl-C")


def stay(stack: Stack, supervisor: subprocess.Popen[bytes]) -> None:
    try:
        code = supervisor.wait()
    except Stopped:
        return
    raise StackFailed(f"supervisord ended with {code}, and everything with it:\n{_last_lines(stack, 'supervisord')}")


def say(what: str, fact: str) -> None:
    print(f"{what:>12}  {fact}", flush=True)


def _subtitles(result: dict[str, Any]) -> str:
    return "\n".join(f"{line['start']:8.2f}  {line['text'].strip()}" for line in result["segments"])


def _ok(url: str) -> bool:
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        # Not listening yet, or 503: urllib's errors are OSErrors.
        return False


def _last_lines(stack: Stack, name: str, count: int = 15) -> str:
    log = stack.logs / f"{name}.log"
    return "\n".join(log.read_text(errors="replace").splitlines()[-count:]) if log.exists() else "it has written no log"


def _stop(_number: int, _frame: FrameType | None) -> NoReturn:
    raise Stopped


if __name__ == "__main__":
    sys.exit(main())
