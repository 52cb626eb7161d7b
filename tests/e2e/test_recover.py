"""Redis forgets everything under a running service; `scripts/recover` brings every job back from the bucket."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jiwer
import msgspec
import numpy as np
import pytest
import redis

from deploy.embedded.running import Running
from storage.job_store import JobStore
from storage.keys import result_key
from storage.object_store import ObjectStore
from storage.settings import StorageSettings
from storage.transcript import Transcript
from tests.conftest import ROOT, Sample
from tests.processes import environment, new_worker
from tests.recordings import samples_of, wav
from tests.service.apis import Api, new_api
from tests.storage.test_job_store import wait_until

ALICE, BOB = ({"X-API-Key": name} for name in ("alice", "bob"))


class Service:
    """An API and a worker that does one chunk at a time, on a Redis and a bucket of their own."""

    def __init__(self, settings: StorageSettings, folder: Path) -> None:
        self.settings = settings
        self.objects = ObjectStore(settings)
        self.objects.prepare()
        self.jobs = JobStore.connect(settings)
        short = {"JANITOR_SECONDS": "1", "WORKER_THREADS": "1", "CHUNK_TARGET_SECONDS": "5"}
        self.worker: Running = new_worker(folder / "worker", settings, **short)
        self.api: Api = new_api(folder / "api", settings, API_KEYS="alice,bob")
        self.worker.start()
        self.api.running.start()

    def submit(self, recording: bytes, owner: dict[str, str]) -> str:
        answer = self.api.client.post(
            "/api/v1/transcribe-async",
            files={"file": ("talk.wav", recording)},
            data={"language": "en"},
            headers=owner,
        )
        return str(answer.raise_for_status().json()["job_id"])

    def status(self, job_id: str, owner: dict[str, str]) -> httpx.Response:
        return self.api.client.get(f"/api/v1/status/{job_id}", headers=owner)

    def until(self, job_id: str, status: str, seconds: float = 240) -> None:
        wait_until(lambda: self.jobs.get(job_id).status == status, seconds)

    def transcript(self, job_id: str) -> Transcript:
        return msgspec.json.decode(self.objects.get(result_key(job_id, "json")), type=Transcript)

    def stored_chunks(self, job_id: str) -> set[int]:
        """Numbers of the chunks whose results are in the bucket."""
        keys = [item.key for item in self.objects.list(f"chunks/{job_id}/")]
        return {int(key[-9:-5]) for key in keys if key.endswith(".json")}

    def finished_chunks(self, job_id: str) -> list[tuple[int, bool]]:
        """What the worker's log tells: number of the chunk, and whether a stored result was adopted."""
        lines = [line for line in self.worker.log_path.read_text().splitlines() if job_id in line]
        found = [re.search(r'event="chunk finished".* chunk=(\d+) (adopted\S*)', line) for line in lines]
        return [(int(match[1]), match[2] == "adopted") for match in found if match]

    def recover(self) -> str:
        done = subprocess.run(
            [ROOT / "scripts/recover"],
            env={**os.environ, **environment(self.settings), "PYTHON": sys.executable},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def close(self) -> None:
        self.api.client.close()
        for running in (self.api.running, self.worker):
            running.kill()


@pytest.fixture
def service(fresh_settings: StorageSettings, weights_dir: Path, tmp_path: Path) -> Iterator[Service]:
    settings = msgspec.structs.replace(fresh_settings, default_model="tiny.en", model_dir=str(weights_dir))
    started = Service(settings, tmp_path)
    yield started
    started.close()


@pytest.fixture(scope="module")
def long_recording(speech: dict[str, list[Sample]]) -> bytes:
    """A sentence a chunk, so that no text repeats itself, which would be decoded by chance."""
    gap = np.zeros(16_000, np.float32)
    sentences = [samples for sample in speech["en"] * 3 for samples in (samples_of(sample), gap)]
    return wav(np.concatenate(sentences))


def test_every_job_is_back_and_what_was_done_is_not_done_again(
    service: Service, speech: dict[str, list[Sample]], long_recording: bytes
) -> None:
    clip = speech["en"][0].path.read_bytes()
    undisturbed = service.submit(long_recording, BOB)
    done = service.submit(clip, ALICE)
    for job_id in (undisturbed, done):
        service.until(job_id, "completed")
    before = service.status(done, ALICE).json()
    long = service.submit(long_recording, ALICE)
    new: dict[str, Any] = {"source": {"type": "upload", "filename": "a.wav", "size": len(clip)}}
    uploading = service.api.client.post("/api/v1/jobs", json=new, headers=ALICE).json()
    wait_until(lambda: len(service.stored_chunks(long)) >= 2)
    # A clip waits for no chunk, so the worker stands still until these are forgotten.
    service.worker.pause()
    waiting, cancelled = (service.submit(clip, BOB) for _ in range(2))
    service.api.client.post(f"/api/v1/jobs/{cancelled}/cancel", headers=BOB).raise_for_status()

    redis.Redis.from_url(service.settings.redis_url).flushall()
    service.worker.resume()
    lost = service.status(done, ALICE).status_code
    stored, finished_before = service.stored_chunks(long), len(service.finished_chunks(long))
    first, second = service.recover(), service.recover()
    for job_id in (long, waiting):
        service.until(job_id, "completed")

    assert lost == 404
    assert first == "6 recovered: 1 awaiting upload, 1 cancelled, 2 completed, 2 pending; 0 skipped\n"
    assert second == "0 recovered; 0 skipped; 6 were there\n"
    a, b = service.transcript(long), service.transcript(undisturbed)
    starts = [segment.start for segment in a.segments]
    assert starts == sorted(set(starts))
    # Windows that share a batch with others may differ in a word.
    assert jiwer.wer(b.text, a.text) < 0.1
    after = service.finished_chunks(long)[finished_before:]
    assert len(stored) >= 2
    # The one that was in work just then may have been stored after the look.
    assert {number for number, adopted in after if adopted} >= stored
    assert sorted(number for number, _ in after) == list(range(len(after)))
    assert any(not adopted for _, adopted in after)
    again = service.status(done, ALICE).json()
    assert (again["status"], again["result"]) == ("completed", before["result"])
    assert httpx.get(again["files"]["srt"]["url"]).content == httpx.get(before["files"]["srt"]["url"]).content
    assert service.status(done, BOB).status_code == 404
    assert service.status(cancelled, BOB).json()["status"] == "cancelled"
    put = httpx.put(uploading["upload"]["url"], content=clip, headers=uploading["upload"]["headers"])
    start = service.api.client.post(f"/api/v1/jobs/{uploading['job_id']}/start", headers=ALICE)
    assert (put.status_code, start.status_code) == (200, 202)
    assert service.api.client.get("/api/v1/jobs", headers=ALICE).json()["total"] == 3
