"""`scripts/up` from outside: its Python part on a scratch folder and free ports, with the interpreter of the tests."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from deploy.embedded.parts import STORE_PORTS, free_port
from deploy.embedded.stack import plan
from deploy.embedded.up import StackFailed, compare, ends
from deploy.environment import read_file
from storage.models import MODELS
from tests.listener import listening

ROOT = Path(__file__).resolve().parent.parent.parent
#: The last line of a stack that is ready.
READY = "Ctrl-C"
#: Program → a word of its command line.
PROGRAMS = {"redis": "valkey-server", "store": "mini", "worker": "actors.worker", "api": "service"}


class Up:
    """One run of the command."""

    def __init__(self, folder: Path, *arguments: str, output: str = "output.txt", **settings: str) -> None:
        self.folder = folder
        self.settings = {"BUCKETSCRIBE_DATA": str(folder), **settings}
        self.api = f"http://127.0.0.1:{self.settings['API_PORT']}"
        self._output = folder.with_name(f"{folder.name}-{output}")
        with self._output.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "deploy.embedded.up", *arguments],
                cwd=ROOT,
                env={**os.environ, **self.settings},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self._output.read_text()

    def wait_until_ready(self) -> None:
        wait_for(lambda: READY in self.output or self.process.poll() is not None, self.output)
        assert self.process.poll() is None, self.output

    def pids(self) -> dict[str, int]:
        """Of the programs that run."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return {name: child.pid for name, word in PROGRAMS.items() for child in children if word in command_line(child)}

    def supervisor(self) -> psutil.Process:
        (supervisor,) = psutil.Process(self.process.pid).children()
        return supervisor

    def left(self) -> list[str]:
        """Command lines of whatever still runs in this folder."""
        return [" ".join(command_line(process)) for process in psutil.process_iter() if self._is_ours(process)]

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(120)

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return (
                process.environ().get("BUCKETSCRIBE_DATA") == str(self.folder)
                or Path(process.cwd()).is_relative_to(self.folder)
            ) and process.status() != psutil.STATUS_ZOMBIE
        except (psutil.Error, OSError):
            # It ended while it was looked at.
            return False


@pytest.fixture(scope="module")
def settings(weights_dir: Path) -> dict[str, str]:
    """A small model, whose weights the checkout keeps."""
    return {
        "DEFAULT_MODEL": "tiny.en",
        "MODEL_DIR": str(weights_dir),
    }


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, settings: dict[str, str]) -> Iterator[Up]:
    """One that the tests leave running."""
    stack = Up(tmp_path_factory.mktemp("up") / "data", **settings, **free_ports())
    stack.wait_until_ready()
    yield stack
    stack.stop()


@pytest.fixture
def doomed(tmp_path: Path, settings: dict[str, str]) -> Iterator[Up]:
    stack = Up(tmp_path / "data", **settings, **free_ports())
    stack.wait_until_ready()
    yield stack
    stack.stop()


def test_what_dies_is_started_again(up: Up) -> None:
    before = up.pids()
    assert before.keys() == PROGRAMS.keys()

    for pid in before.values():
        os.kill(pid, signal.SIGKILL)

    wait_for(lambda: up.pids().keys() == PROGRAMS.keys() and not set(up.pids().values()) & set(before.values()))
    wait_for(lambda: answers(f"{up.api}/health/ready") and answers(f"{up.api}/health/async"))


def test_a_stack_refuses_a_folder_and_a_port_in_use(up: Up, tmp_path: Path, settings: dict[str, str]) -> None:
    same_folder = Up(up.folder, **settings, **free_ports(), output="same.txt")
    other_folder = Up(tmp_path / "other", **settings, **free_ports() | {"API_PORT": up.settings["API_PORT"]})

    codes = same_folder.process.wait(240), other_folder.process.wait(240)

    assert codes == (1, 1)
    assert f"a stack runs in {up.folder} already" in same_folder.output
    assert f"port {up.settings['API_PORT']} is taken: stop what listens there, or set API_PORT" in other_folder.output
    assert other_folder.left() == []
    assert answers(f"{up.api}/health/ready")


def test_the_scripts_find_the_stack(up: Up) -> None:
    environment = {**os.environ, "BUCKETSCRIBE_DATA": str(up.folder)}

    check = run_script("check_async.py", environment)
    purge = run_script("purge_queue.py", environment, "--yes")

    assert check.returncode == 0, check.stdout
    # A killed worker is counted until it has been silent for 20 s.
    assert re.match(r"✓ Redis is connected\n✓ workers active: [12]\n", check.stdout)
    assert "✓ queue chunks-low: 0\n✓ store: bucket bucketscribe at " in check.stdout
    assert (purge.returncode, purge.stdout) == (0, "✓ purged jobs: 0\n")


def test_keys_and_logs_are_the_owners_alone(up: Up) -> None:
    modes = {path: path.stat().st_mode & 0o777 for path in (up.folder, up.folder / "stack.env", up.folder / "logs")}

    keys = [value for name, value in read_file(up.folder / "stack.env").items() if name.endswith(("KEY", "PASSWORD"))]

    assert list(modes.values()) == [0o700, 0o600, 0o700]
    assert len(keys) == 3
    shown = up.output + "".join(" ".join(command_line(psutil.Process(pid))) for pid in up.pids().values())
    # The access key is the public half: it stands in every signed link.
    secret = [key for key in keys if key != read_file(up.folder / "stack.env")["S3_ACCESS_KEY"]]
    assert open_to_others(up.folder) == []
    assert not [key for key in secret if key in shown + (up.folder / "supervisord.ini").read_text()]


def test_what_an_earlier_version_left_open_is_closed(tmp_path: Path, settings: dict[str, str]) -> None:
    folder = tmp_path / "data"
    left = [folder / name for name in ("logs/worker.log", "supervisord.ini", "lock", "redis/appendonlydir/a", "mine/b")]
    for path in left:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.write_text("")
        path.chmod(0o644)

    stack = Up(folder, "--check", **settings, **free_ports())

    assert stack.process.wait(600) == 0, stack.output
    assert open_to_others(folder) == [folder, folder / "mine", folder / "mine/b"]


def test_check_stops_by_itself_and_the_next_start_has_its_job(tmp_path: Path, settings: dict[str, str]) -> None:
    ports = free_ports()
    with listening() as proxy:
        # All of the stack is on this machine.
        check = Up(tmp_path / "data", "--check", **settings, **ports, **proxy.variables)

        assert check.process.wait(600) == 0, check.output
        assert proxy.connections == 0
    assert check.left() == []
    assert re.findall(r"^ +\d+\.\d\d  (.+)$", check.output, re.MULTILINE)

    again = Up(tmp_path / "data", **settings, **ports)
    again.wait_until_ready()
    jobs = httpx.get(f"{again.api}/api/v1/jobs").json()["jobs"]
    links = [httpx.get(f"{again.api}/api/v1/status/{job['job_id']}").json()["files"]["srt"]["url"] for job in jobs]
    subtitles = [httpx.get(link).text for link in links]
    again.stop()

    assert [job["status"] for job in jobs] == ["completed", "completed"]
    assert subtitles[0] == subtitles[1] != ""
    assert again.process.returncode == 0
    assert again.left() == []


def test_a_sample_that_the_settings_refuse_does_not_stop_the_stack(tmp_path: Path, settings: dict[str, str]) -> None:
    stack = Up(tmp_path / "data", **settings, **free_ports(), MAX_DURATION="5")
    stack.wait_until_ready()
    stack.stop()

    assert "the sample was not transcribed: the job is failed: the recording lasts" in stack.output
    assert stack.process.returncode == 0


def test_a_sample_that_is_heard_wrongly_fails_the_check() -> None:
    compare(" and mr john dashwood: HAD then ", "And Mr. John Dashwood had, then.\n")

    with pytest.raises(StackFailed) as failed:
        compare(" He was not an ill-sposed young man.", "He was not an ill-disposed young man.\n")

    assert str(failed.value) == (
        "the sample says\n  He was not an ill-disposed young man.\nand not\n  He was not an ill-sposed young man."
    )


def test_a_killed_supervisor_takes_its_programs_with_it(doomed: Up) -> None:
    doomed.supervisor().kill()

    assert doomed.process.wait(120) == 1
    wait_for(lambda: doomed.left() == [])
    assert "supervisord ended" in doomed.output


def test_a_killed_command_stops_everything(doomed: Up) -> None:
    doomed.process.kill()
    doomed.process.wait()

    wait_for(lambda: doomed.left() == [])


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"API_PORT": "99999"}, "API_PORT=99999: 65535 at most"),
        ({"WORKER_THREADS": "0"}, "WORKER_THREADS=0: 1 at least"),
        ({"RATE_LIMIT": "often"}, "RATE_LIMIT: 'often' is not a rate as `600/minute`"),
        ({"API_KEYS": " , "}, "API_KEYS: it is set and holds no key; leave it empty to ask for none"),
        ({"DEFAULT_MODEL": "huge"}, f"DEFAULT_MODEL: 'huge' is no model; there are {', '.join(MODELS)}"),
        ({"BUCKETSCRIBE_DATA": "/proc/nope"}, "BUCKETSCRIBE_DATA: cannot make the folder /proc/nope: "),
    ],
)
def test_a_setting_that_makes_no_sense_ends_it_before_anything_starts(
    tmp_path: Path, wrong: dict[str, str], reason: str
) -> None:
    stack = Up(tmp_path / "data", **free_ports() | wrong)

    code = stack.process.wait(120)

    assert code == 1
    assert stack.output.startswith(f"✗ {reason}")
    assert stack.output.count("\n") == 1
    assert not (tmp_path / "data/supervisord.ini").exists()


def test_a_part_that_keeps_dying_ends_it_at_once_with_its_reason(tmp_path: Path, settings: dict[str, str]) -> None:
    stack = Up(tmp_path / "data", **settings, **free_ports(), WHISPER_DEVICE="cpu", WHISPER_COMPUTE_TYPE="float17")

    code = stack.process.wait(120)

    assert code == 1
    assert "✗ worker ended 3 times: " in stack.output
    assert "float17" in stack.output
    assert stack.left() == []


def test_what_ended_in_an_earlier_run_does_not_count(tmp_path: Path) -> None:
    stack = plan({"BUCKETSCRIBE_DATA": str(tmp_path)})
    log = [
        "INFO supervisord started with pid 41", "INFO exited: worker (exit status 1; not expected)",
        "INFO supervisord started with pid 42", "INFO exited: api (terminated by SIGKILL; not expected)",
        "INFO exited: worker (exit status 1; not expected)", "WARN exited: worker (exit status 1; not expected)", "",
    ]  # fmt: skip
    (stack.logs / "supervisord.log").write_text("\n".join(log))

    counted = ends(stack, 42), ends(stack, 43)

    assert counted == ({"api": 1, "worker": 2}, {})


def free_ports() -> dict[str, str]:
    # In a row, so that none of them is another's.
    first = free_port(STORE_PORTS + 2)
    numbers = {"S3_PORT": first, "API_PORT": first + STORE_PORTS, "REDIS_PORT": first + STORE_PORTS + 1}
    return {name: str(port) for name, port in numbers.items()}


def open_to_others(folder: Path) -> list[Path]:
    """What another user could read there, but for .vif files, whose mode SeaweedFS sets itself in a closed folder."""
    paths = (folder, *sorted(folder.rglob("*")))
    return [path for path in paths if path.lstat().st_mode & 0o077 and path.suffix != ".vif"]


def run_script(name: str, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / name), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=240)


def command_line(process: psutil.Process) -> list[str]:
    try:
        # Valkey writes its title over its arguments.
        return [word for argument in process.cmdline() for word in argument.split()] + [process.name()]
    except psutil.Error:
        return []


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def wait_for(true: Callable[[], bool], context: str = "", timeout_seconds: float = 240) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not true():
        assert time.monotonic() < deadline, f"it did not come to pass in {timeout_seconds:.0f} s {context}"
        time.sleep(0.1)
