"""Parts of a whole stack die and hang while it works: what a client sees of it, and what comes out in the end.

What the pipeline's own tests show with workers alone (test_pipeline_killed.py: a killed, a frozen, a stopped worker) is
not shown again, but by the small run of `scripts/chaos` at the end. Leases are short here, so that tests need not wait.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import jiwer
import pytest

from deploy.embedded.unsupervised import Unsupervised, unsupervised
from deploy.embedded.up import StackFailed
from scripts.faults.clients import Client
from scripts.faults.speech import Known, known_recordings
from tests.conftest import ROOT, unavailable

SETTINGS = {
    "DEFAULT_MODEL": "tiny.en",
    "LEASE_SECONDS": "3",
    "HEARTBEAT_SECONDS": "3",
    "JANITOR_SECONDS": "1",
    "CHUNK_TARGET_SECONDS": "20",
    "CHUNK_MAX_SECONDS": "30",
}


class House:
    """The stack, and clients that know only its address."""

    def __init__(self, stack: Unsupervised) -> None:
        self.stack = stack
        self.api = f"{stack.plan.api}/api/v1"
        #: Asks again until it gets an answer.
        self.patient = Client(stack.plan.api, seed=1)
        #: Takes the first answer.
        self.http = httpx.Client(timeout=30, trust_env=False)

    def submit(self, known: Known) -> str:
        return self.patient.submit(known, "form", "normal").job_id

    def status(self, job_id: str) -> dict[str, Any]:
        job = self.patient.status(job_id)
        assert job is not None
        return job

    def working(self, job_id: str) -> bool:
        """In work, and some of it done where there are chunks."""
        job = self.status(job_id)
        return bool(job["status"] == "processing" and (job["progress"] or job["source"]["size"] < 1_000_000))

    def finished(self, job_id: str) -> dict[str, Any]:
        wait_for(lambda: self.status(job_id)["status"] in ("completed", "failed", "cancelled"))
        return self.status(job_id)

    def completions(self, job_id: str) -> int:
        events = self.stack.jobs._redis.xrange(f"bs:events:{job_id}")
        return sum(event["type"] == "completed" for _, event in events)

    def listed(self) -> set[str]:
        return {job["job_id"] for job in self.patient.jobs()}

    def recordings(self) -> set[str]:
        """Ids of the jobs that have anything in the bucket."""
        return {item.key.split("/")[1] for item in self.stack.objects.list("sources/")}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, weights_dir: Path) -> Iterator[House]:
    try:
        with unsupervised(tmp_path_factory.mktemp("stack"), {**SETTINGS, "MODEL_DIR": str(weights_dir)}) as stack:
            yield House(stack)
    except StackFailed as error:
        unavailable(str(error))


@pytest.fixture(scope="module")
def recordings() -> dict[str, Known]:
    return {known.name: known for known in known_recordings(long_seconds=60)}


@pytest.fixture(scope="module")
def talk(recordings: dict[str, Known]) -> Known:
    """A minute: three chunks."""
    return recordings["talk"]


@pytest.fixture(scope="module")
def undisturbed(house: House, talk: Known) -> dict[str, Any]:
    """The talk's transcript when nothing happens."""
    return dict(house.finished(house.submit(talk))["result"])


def test_a_worker_that_is_killed_and_started_again_goes_on_and_says_nothing_twice(
    house: House, talk: Known, undisturbed: dict[str, Any]
) -> None:
    (worker,) = house.stack.workers
    job_id = house.submit(talk)
    wait_for(lambda: house.working(job_id))

    worker.restart()
    job = house.finished(job_id)

    assert job["status"] == "completed"
    assert says_the_same(job["result"], undisturbed)
    assert house.completions(job_id) == 1


def test_a_killed_api_leaves_running_jobs_alone_and_nothing_of_a_broken_upload(
    house: House, talk: Known, undisturbed: dict[str, Any]
) -> None:
    job_id = house.submit(talk)
    before = house.listed(), house.recordings()
    upload = half_an_upload(house.api)

    house.stack.api.kill()
    with pytest.raises(OSError, match=r".*"):
        answered(upload)
    house.stack.api.start()
    job = house.finished(job_id)

    assert (house.listed(), house.recordings()) == before
    assert says_the_same(job["result"], undisturbed)
    assert house.completions(job_id) == 1


def test_a_killed_redis_comes_back_with_all_its_jobs_and_no_attempt_is_lost(
    house: House, talk: Known, recordings: dict[str, Known], undisturbed: dict[str, Any]
) -> None:
    running, *waiting = [house.submit(known) for known in (talk, recordings["greeting"], recordings["sample"])]
    wait_for(lambda: house.working(running))
    before = house.listed()

    house.stack.redis.restart()
    jobs = [house.finished(job_id) for job_id in (running, *waiting)]

    assert [job["status"] for job in jobs] == ["completed"] * 3
    assert says_the_same(jobs[0]["result"], undisturbed)
    assert house.listed() == before
    assert [house.completions(job["job_id"]) for job in jobs] == [1, 1, 1]


def test_a_redis_that_hangs_is_answered_with_503_and_fails_no_job(
    house: House, talk: Known, undisturbed: dict[str, Any]
) -> None:
    job_id = house.submit(talk)
    wait_for(lambda: house.working(job_id))

    house.stack.redis.pause()
    try:
        answer = house.http.get(f"{house.api}/status/{job_id}")
    finally:
        house.stack.redis.resume()
    job = house.finished(job_id)

    assert (answer.status_code, answer.json()["code"]) == (503, "queue_unavailable")
    assert int(answer.headers["retry-after"]) > 0
    assert says_the_same(job["result"], undisturbed)
    assert house.completions(job_id) == 1


def test_a_killed_store_is_answered_with_503_and_fails_no_job(
    house: House, talk: Known, recordings: dict[str, Known], undisturbed: dict[str, Any]
) -> None:
    running = house.submit(talk)
    greeting = recordings["greeting"]
    source = {"type": "upload", "filename": greeting.filename, "size": len(greeting.content)}
    uploaded = house.http.post(f"{house.api}/jobs", json={"source": source}).json()
    house.http.put(uploaded["upload"]["url"], content=greeting.content).raise_for_status()
    wait_for(lambda: house.working(running))

    house.stack.store.kill()
    start = house.http.post(f"{house.api}/jobs/{uploaded['job_id']}/start")
    house.stack.store.start()
    again = house.http.post(f"{house.api}/jobs/{uploaded['job_id']}/start")
    jobs = [house.finished(job_id) for job_id in (running, uploaded["job_id"])]

    assert (start.status_code, start.json()["code"], again.status_code) == (503, "storage_unavailable", 202)
    assert int(start.headers["retry-after"]) > 0
    assert [job["status"] for job in jobs] == ["completed", "completed"]
    assert says_the_same(jobs[0]["result"], undisturbed)


def test_a_small_chaos_loses_doubles_and_spoils_nothing(weights_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    short = {"LEASE_SECONDS": "3", "JANITOR_SECONDS": "1", "MODEL_DIR": str(weights_dir)}

    done = subprocess.run(
        [ROOT / "scripts/chaos", "--jobs", "6", "--kills", "3", "--long-seconds", "30", "--json", str(file)],
        env={**os.environ, "PYTHON": sys.executable, **short},
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(file.read_text())
    assert (figures["accepted"], figures["completed"]) == (6, 6)
    assert [figures[name] for name in ("failed", "lost", "doubled", "wrong")] == [0, 0, 0, 0]
    assert sum(figures["strikes"].values()) == 3
    assert "recover_seconds" in figures


def says_the_same(result: dict[str, Any], undisturbed: dict[str, Any]) -> bool:
    """No stretch is missing or there twice; windows that share a batch with others may differ in a word."""
    starts = [segment["start"] for segment in result["segments"]]
    return starts == sorted(set(starts)) and float(jiwer.wer(undisturbed["text"], result["text"])) < 0.1


def half_an_upload(api: str) -> socket.socket:
    """A form whose recording has begun to arrive."""
    address = urlsplit(api)
    connection = socket.create_connection((address.hostname or "", address.port or 80), timeout=120)
    head = (
        '--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    connection.sendall(
        f"POST {address.path}/transcribe-async HTTP/1.1\r\nHost: {address.netloc}\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 30000000\r\n\r\n"
        f"{head}".encode()
    )
    # More than a part, so that the store has some of it.
    connection.sendall(b"\0" * 10 * 2**20)
    return connection


def answered(connection: socket.socket) -> bytes:
    """
    Raises:
        OSError: the other side is gone without a word.
    """
    with connection:
        answer = connection.recv(1000)
    if not answer:
        raise ConnectionResetError("closed without an answer")
    return answer


def wait_for(true: Callable[[], bool], timeout_seconds: float = 240) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not true():
        assert time.monotonic() < deadline, f"it did not come to pass in {timeout_seconds:.0f} s"
        time.sleep(0.05)
