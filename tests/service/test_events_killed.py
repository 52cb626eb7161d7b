"""Live events of jobs whose worker, or whose listener's server, comes to a hard end."""

import time
from pathlib import Path

import msgspec
import pytest
from httpx_sse import ServerSentEvent

from storage.job_store import JobStore
from storage.settings import StorageSettings
from storage.transcript import Segment
from tests.conftest import Sample
from tests.processes import new_worker
from tests.recordings import joined, wav
from tests.service.conftest import StartApi
from tests.service.test_events import _listener, heard, listening, segments, submit, transcript
from tests.stack import Parts
from tests.storage.test_job_store import stored

#: Soon missed when they are killed, and one word at a time, so that there is a time to kill them in.
SHORT = {"ENGINE": "sequential", "LEASE_SECONDS": "3", "JANITOR_SECONDS": "1", "HEARTBEAT_SECONDS": "3"}
WHOLE = {"CHUNK_TARGET_SECONDS": "600", "CHUNK_MAX_SECONDS": "900"}
CHUNKS = {"CHUNK_TARGET_SECONDS": "5", "CHUNK_MAX_SECONDS": "10", "WORKER_THREADS": "1"}


@pytest.mark.parametrize(("seconds", "more"), [(90, WHOLE), (60, CHUNKS)], ids=["whole", "in chunks"])
def test_a_worker_that_is_killed_leaves_no_segment_out_and_none_twice(
    parts: Parts,
    store_settings: StorageSettings,
    weights_dir: Path,
    start_api: StartApi,
    tmp_path: Path,
    speech: dict[str, list[Sample]],
    seconds: int,
    more: dict[str, str],
) -> None:
    redis = parts.start_redis()
    settings = msgspec.structs.replace(
        store_settings, redis_url=redis.url, default_model="tiny.en", model_dir=str(weights_dir)
    )
    api = start_api(settings)
    first, second = (new_worker(tmp_path / name, settings, **SHORT, **more) for name in ("first", "second"))
    first.start()
    recording = wav(joined(speech["en"], seconds=seconds, gap_seconds=4.0))
    job_id = submit(api, recording)

    found: list[ServerSentEvent] = []
    with listening(api, job_id) as events:
        while not segments(found):
            found.append(next(events))
        first.kill()
        left = api.client.get(f"/api/v1/status/{job_id}").json()["status"]
        second.start()
        found += list(events)
    undisturbed = submit(api, recording)
    heard(api, undisturbed)
    second.stop()

    assert left == "processing", "the second worker was not needed"
    assert [event.event for event in found[-1:]] == ["completed"]
    assert segments(found) == transcript(api, job_id)["segments"]
    assert len(segments(found)) > 1, "nothing was left to be said"
    assert segments(heard(api, job_id)) == segments(found)
    # By its time and not its words: speech that is repeated is decoded by chance.
    spoken = [
        sum(segment["end"] - segment["start"] for segment in transcript(api, one)["segments"])
        for one in (undisturbed, job_id)
    ]
    assert spoken[1] == pytest.approx(spoken[0], rel=0.3)


def test_who_does_not_read_what_is_told_does_not_hold_up_a_server_that_is_to_stop(
    start_api: StartApi, quiet_settings: StorageSettings
) -> None:
    api, jobs = start_api(quiet_settings), JobStore.connect(quiet_settings)
    job = stored(jobs, owner="")
    claim = jobs.claim(job.job_id, "w", lease_seconds=600, max_attempts=3)
    # More than the system's buffers take: the stuck one's answer stands still.
    for number in range(0, 2000, 100):
        said = [Segment(id, id, id + 1.0, "long " * 1600, 0.5) for id in range(number, number + 100)]
        jobs.tell(claim, number, said, "en", 1.0)

    with _listener(api, job.job_id):
        with listening(api, job.job_id) as events:
            told = 0
            while told < 2000:
                told += next(events).event == "segment"
        began = time.monotonic()
        api.running.stop()
        lasted = time.monotonic() - began

    jobs.cancel(job.job_id)
    assert lasted < 25, "a request under way has half a minute"
