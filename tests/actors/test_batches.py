"""The batcher: turns, company, failures. What a batch does is a plain function here; the rest is threads."""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future

import pytest

from actors.batches import BATCH, Batcher, Queue


class Recorder:
    """Notes each batch, and lets it end only while the gate is open."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Semaphore(0)

    def decode(self, items: Sequence[str]) -> list[str]:
        self.batches.append(list(items))
        self.begun.release()
        assert self.gate.wait(120)
        if any("broken" in item for item in items):
            raise ValueError("a broken window")
        return [item.upper() for item in items]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def batcher() -> Iterator[Batcher[str, str]]:
    batcher: Batcher[str, str] = Batcher(threads=1)
    yield batcher
    batcher.close()


def submit(queue: Queue[str, str], recorder: Recorder, items: Sequence[str], key: str = "15 s") -> list[Future[str]]:
    return [queue.submit(key, item, recorder.decode) for item in items]


def busy(batcher: Batcher[str, str], recorder: Recorder) -> Queue[str, str]:
    """Keep the only thread in a batch, until the gate opens, so that what is submitted next waits."""
    recorder.gate.clear()
    queue = batcher.open()
    queue.submit("other", "blocker", recorder.decode)
    assert recorder.begun.acquire(timeout=120)
    return queue


def test_a_lone_job_begins_with_one_window_and_grows(batcher: Batcher[str, str], recorder: Recorder) -> None:
    busy(batcher, recorder).close()
    job = batcher.open()
    answers = submit(job, recorder, [f"w{number}" for number in range(20)])

    recorder.gate.set()
    texts = [answer.result(120) for answer in answers]

    assert texts == [f"W{number}" for number in range(20)]
    assert [len(batch) for batch in recorder.batches[1:]] == [1, 2, 4, BATCH, 5]


def test_a_clip_is_in_the_next_batch_however_much_a_long_job_has_waiting(
    batcher: Batcher[str, str], recorder: Recorder
) -> None:
    long = busy(batcher, recorder)
    submit(long, recorder, [f"long{number}" for number in range(30)])
    clip = batcher.open()
    answer = submit(clip, recorder, ["clip"])

    recorder.gate.set()

    assert answer[0].result(120) == "CLIP"
    assert "clip" in recorder.batches[1]


def test_jobs_take_turns_where_their_windows_differ_in_length(batcher: Batcher[str, str], recorder: Recorder) -> None:
    first = busy(batcher, recorder)
    second = batcher.open()
    answers = submit(first, recorder, ["a1", "a2", "a3", "a4", "a5"], "15 s")
    answers += submit(second, recorder, ["b1", "b2", "b3"], "8 s")

    recorder.gate.set()
    for answer in answers:
        answer.result(120)

    begins = [batch[0][0] for batch in recorder.batches[1:]]
    assert begins[:4] in (["b", "a", "b", "a"], ["a", "b", "a", "b"])
    assert not any({item[0] for item in batch} == {"a", "b"} for batch in recorder.batches)


def test_windows_of_several_jobs_share_a_batch(batcher: Batcher[str, str], recorder: Recorder) -> None:
    busy(batcher, recorder).close()
    jobs = [batcher.open() for _ in range(BATCH)]
    answers = [submit(job, recorder, [f"job{number}"])[0] for number, job in enumerate(jobs)]

    recorder.gate.set()

    assert [answer.result(120) for answer in answers] == [f"JOB{number}" for number in range(BATCH)]
    assert len(recorder.batches[1]) == BATCH


def test_a_batch_waits_a_moment_for_a_job_that_was_just_opened(recorder: Recorder) -> None:
    batcher: Batcher[str, str] = Batcher(threads=1, wait_seconds=60)
    early, late = batcher.open(), batcher.open()

    began = time.monotonic()
    answers = submit(early, recorder, ["early"])
    answers += submit(late, recorder, ["late"])
    texts = [answer.result(120) for answer in answers]
    took = time.monotonic() - began
    batcher.close()

    assert texts == ["EARLY", "LATE"]
    assert len(recorder.batches) == 1
    assert took < 60, "the other job was waited for although it was there"


def test_a_job_that_reads_slowly_is_waited_for_once(recorder: Recorder) -> None:
    batcher: Batcher[str, str] = Batcher(threads=1, wait_seconds=1.5)
    batcher.open()
    early = batcher.open()

    began = time.monotonic()
    for text in ("one", "two", "three"):
        submit(early, recorder, [text])[0].result(120)
    took = time.monotonic() - began
    batcher.close()

    assert 1.5 <= took < 4.5, "it was waited for each time"


def test_a_failing_window_fails_alone(batcher: Batcher[str, str], recorder: Recorder) -> None:
    busy(batcher, recorder).close()
    jobs = [batcher.open() for _ in range(4)]
    names = ["fine", "broken", "good", "well"]
    answers = [submit(job, recorder, [name])[0] for job, name in zip(jobs, names, strict=True)]

    recorder.gate.set()

    assert [answers[at].result(120) for at in (0, 2, 3)] == ["FINE", "GOOD", "WELL"]
    with pytest.raises(ValueError, match="broken window"):
        answers[1].result(120)


def test_what_a_closed_job_had_waiting_is_not_decoded(batcher: Batcher[str, str], recorder: Recorder) -> None:
    long = busy(batcher, recorder)
    dropped = submit(long, recorder, ["long1", "long2"])
    other = submit(batcher.open(), recorder, ["other"])

    long.close()
    recorder.gate.set()

    assert other[0].result(120) == "OTHER"
    with pytest.raises(CancelledError):
        dropped[0].result(120)
    assert [item for batch in recorder.batches for item in batch] == ["blocker", "other"]


def test_a_window_that_is_heard_again_goes_before_the_rest(batcher: Batcher[str, str], recorder: Recorder) -> None:
    job = busy(batcher, recorder)
    later = submit(job, recorder, ["later"])
    again = job.submit("15 s", "again", recorder.decode, first=True)

    recorder.gate.set()
    again.result(120)
    later[0].result(120)

    assert [item for batch in recorder.batches for item in batch] == ["blocker", "again", "later"]


def test_closing_ends_the_threads_and_what_waits(recorder: Recorder) -> None:
    others = set(threading.enumerate())
    batcher: Batcher[str, str] = Batcher(threads=2)
    submit(batcher.open(), recorder, ["done"])[0].result(120)

    batcher.close()

    assert not [thread for thread in set(threading.enumerate()) - others if thread.name.startswith("engine-")]
    assert batcher.open().submit("15 s", "late", recorder.decode).cancelled()
