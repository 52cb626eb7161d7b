"""What is told of a short recording, with a real Redis: it stays true whoever goes on with the work."""

import pytest

from actors.telling import Telling
from storage.errors import JobConflict
from storage.job_store import Claim, JobStore
from storage.transcript import Segment
from tests.storage.test_job_store import stored, wait_until

#: Start, end and text of what a worker hears.
Heard = list[tuple[float, float, str]]

FIRST: Heard = [(0.0, 2.0, " one"), (2.0, 4.5, " two"), (5.0, 7.0, " three"), (7.5, 9.0, " four")]


def tell(jobs: JobStore, claim: Claim, heard: Heard) -> list[str]:
    """Returns the text of the transcript."""
    telling = Telling(jobs, claim)
    for start, end, text in heard:
        # The engine numbers anew what it hears in each stretch.
        telling.add(Segment(0, start, end, text, 0.9), "en", 0.8)
    telling.finish()
    assert [segment.id for segment in telling.segments] == list(range(len(telling.segments)))
    return [segment.text for segment in telling.segments]


def taken_over(jobs: JobStore, job_id: str) -> Claim:
    """By another worker, as soon as the first one's lease is over."""
    claims: list[Claim] = []

    def claimed() -> bool:
        try:
            claims.append(jobs.claim(job_id, "other", lease_seconds=60, max_attempts=3))
        except JobConflict:
            return False
        return True

    wait_until(claimed)
    return claims[0]


@pytest.mark.parametrize(
    ("told", "heard_again", "transcript"),
    [
        pytest.param(FIRST[:2], FIRST, [" one", " two", " three", " four"], id="the same"),
        pytest.param(FIRST, FIRST, [" one", " two", " three", " four"], id="all was told"),
        pytest.param(
            FIRST[:2],
            [(0.0, 1.0, " won"), (1.0, 4.0, " too"), (4.0, 5.0, " tree"), (5.0, 9.0, " for")],
            [" one", " two", " for"],
            id="another text",
        ),
        pytest.param(FIRST[:2], [(0.0, 2.0, " one")], [" one", " two"], id="less than was told"),
        pytest.param([(3.0, 3.0, " a click")], [(3.0, 3.0, " a click"), *FIRST[2:]], [" a click", " three", " four"]),
    ],
)
def test_a_worker_that_takes_over_goes_on_behind_what_was_told(
    told: Heard, heard_again: Heard, transcript: list[str], job_store: JobStore
) -> None:
    job = stored(job_store)
    tell(job_store, job_store.claim(job.job_id, "first", lease_seconds=0.2, max_attempts=3), told)

    found = tell(job_store, taken_over(job_store, job.job_id), heard_again)

    assert found == transcript
    assert [segment.text for segment in job_store.told(job.job_id)] == transcript
