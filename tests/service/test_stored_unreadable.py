"""Results that were damaged or replaced in the store: who asks for them is told what is wrong."""

import httpx
import msgspec
import pytest

from actors.formats import FORMATS
from storage.job_store import JobStore
from storage.keys import result_key
from storage.object_store import ObjectStore
from tests.service.apis import Api
from tests.storage.test_job_store import stored


@pytest.mark.parametrize("content", [b"", b"[7]", b'{"text": "cut of', b"[" * 100_000])
@pytest.mark.parametrize(
    "path", ["status/{}", "jobs/{}/transcript.srt?max_line_width=30", "jobs/{}/transcript.json?report=true"]
)
def test_a_transcript_that_cannot_be_read_is_said_to_be_so(
    quiet_api: Api, quiet_store: ObjectStore, path: str, content: bytes
) -> None:
    jobs = JobStore.connect(quiet_api.settings)
    claim = jobs.claim(stored(jobs, owner="").job_id, "w", lease_seconds=60, max_attempts=1)
    job_id = claim.job.job_id
    for name in FORMATS:
        quiet_store.put(result_key(job_id, name), content, "text/plain")
    jobs.complete(job_id, claim.token, dict.fromkeys(FORMATS, len(content)), 1.0)

    answer: httpx.Response = quiet_api.client.get(f"/api/v1/{path.format(job_id)}")

    assert answer.status_code == 500
    problem = msgspec.json.decode(answer.content)
    assert problem["code"] == "stored_unreadable"
    assert problem["detail"] == "an object that is needed for this was damaged or replaced in the store"
