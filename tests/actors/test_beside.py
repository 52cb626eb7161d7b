"""Results beside their source: names, and that nothing of anybody else is overwritten."""

import secrets
from collections.abc import Callable

import msgspec
import pytest

from actors.beside import is_result, put_beside
from actors.formats import FORMATS
from storage.inbox import known_etag
from storage.job import Job, JobStatus, Options, Source, new_job_id
from storage.keys import result_key
from storage.notes import note_end
from storage.object_store import ObjectInfo, ObjectStore
from storage.settings import StorageSettings


@pytest.fixture
def folder() -> str:
    return f"inbox/{secrets.token_hex(4)}"


def transcribed(key: str, store: ObjectStore, task: str = "transcribe", recording: bytes = b"sound") -> Job:
    """A job whose recording lies in the inbox and whose results are stored: each says which job it is of."""
    store.put(key, recording, "audio/mpeg")
    info = store.head(key)
    job = Job(
        job_id=new_job_id(),
        owner="",
        status=JobStatus.PROCESSING,
        source=Source(type="inbox", key=key, filename="talk.mp3", size=info.size, digest=f"etag:{info.etag}"),
        options=msgspec.convert({"model": "base", "task": task}, Options),
        created_at=0.0,
    )
    for name in FORMATS:
        store.put(result_key(job.job_id, name), f"{name} of {job.job_id}".encode(), "text/plain")
    return job


def lying_in(folder: str, store: ObjectStore) -> dict[str, bytes]:
    return {item.key.removeprefix(f"{folder}/"): store.get(item.key) for item in store.list(f"{folder}/")}


def test_results_lie_beside_their_source_and_are_known_as_such(object_store: ObjectStore, folder: str) -> None:
    job = transcribed(f"{folder}/a talk.v2.mp3", object_store)

    warnings = put_beside(job, "en", object_store)

    there = lying_in(folder, object_store)
    assert warnings == []
    assert sorted(there) == ["a talk.v2.en.json", "a talk.v2.en.srt", "a talk.v2.en.txt", "a talk.v2.en.vtt",
                             "a talk.v2.mp3"]  # fmt: skip
    assert there["a talk.v2.en.txt"] == f"text of {job.job_id}".encode()
    assert object_store.head(f"{folder}/a talk.v2.en.srt").content_type == FORMATS["srt"].media_type
    assert is_result(object_store.head(f"{folder}/a talk.v2.en.json"))
    assert not is_result(object_store.head(f"{folder}/a talk.v2.mp3"))


def test_a_translation_is_named_english(object_store: ObjectStore, folder: str) -> None:
    job = transcribed(f"{folder}/rede.mp3", object_store, task="translate")

    put_beside(job, "de", object_store)

    assert "rede.en.srt" in lying_in(folder, object_store)


def test_done_twice_the_results_are_there_once(object_store: ObjectStore, folder: str) -> None:
    job = transcribed(f"{folder}/talk.mp3", object_store)
    put_beside(job, "en", object_store)
    before = {item.key: item for item in object_store.list(f"{folder}/")}

    put_beside(job, "en", object_store)

    assert {item.key: item for item in object_store.list(f"{folder}/")} == before


def test_recordings_that_differ_in_their_extension_have_results_of_their_own(
    object_store: ObjectStore, folder: str
) -> None:
    first, second = (transcribed(f"{folder}/talk.{kind}", object_store) for kind in ("mp3", "wav"))

    for job in (first, second, first, second):
        put_beside(job, "en", object_store)

    there = lying_in(folder, object_store)
    assert len(there) == 2 + 2 * 4
    assert there["talk.en.srt"] == f"srt of {first.job_id}".encode()
    assert there["talk.wav.en.srt"] == f"srt of {second.job_id}".encode()


def test_a_file_of_somebody_else_is_not_overwritten(object_store: ObjectStore, folder: str) -> None:
    object_store.put(f"{folder}/talk.en.srt", b"by hand", "text/plain")
    object_store.put(f"{folder}/talk.mp3.en.srt", b"by hand, too", "text/plain")
    job = transcribed(f"{folder}/talk.mp3", object_store)

    warnings = put_beside(job, "en", object_store)

    there = lying_in(folder, object_store)
    assert warnings == []
    assert (there["talk.en.srt"], there["talk.mp3.en.srt"]) == (b"by hand", b"by hand, too")
    assert there[f"talk.mp3.{job.job_id}.en.srt"] == f"srt of {job.job_id}".encode()
    assert there["talk.en.json"] == f"json of {job.job_id}".encode()


def test_the_next_recording_of_the_same_name_takes_the_place_of_its_results(
    object_store: ObjectStore, folder: str
) -> None:
    put_beside(transcribed(f"{folder}/talk.mp3", object_store), "en", object_store)
    new = transcribed(f"{folder}/talk.mp3", object_store, recording=b"another sound")

    put_beside(new, "en", object_store)

    there = lying_in(folder, object_store)
    assert len(there) == 1 + 4
    assert there["talk.en.vtt"] == f"vtt of {new.job_id}".encode()


def test_a_recording_that_was_replaced_meanwhile_leaves_the_place_to_the_next(
    object_store: ObjectStore, folder: str
) -> None:
    old = transcribed(f"{folder}/talk.mp3", object_store)
    new = transcribed(f"{folder}/talk.mp3", object_store, recording=b"another sound")
    put_beside(new, "en", object_store)

    warnings = put_beside(old, "en", object_store)

    assert warnings == []
    assert lying_in(folder, object_store)["talk.en.txt"] == f"text of {new.job_id}".encode()
    assert known_etag(old.source) != known_etag(new.source)


def test_a_recording_that_was_moved_away_has_its_results_where_it_lay(object_store: ObjectStore, folder: str) -> None:
    job = transcribed(f"{folder}/talk.mp3", object_store)
    object_store.delete(f"{folder}/talk.mp3")

    put_beside(job, "en", object_store)

    assert sorted(lying_in(folder, object_store)) == ["talk.en.json", "talk.en.srt", "talk.en.txt", "talk.en.vtt"]


class Interrupted(ObjectStore):
    """Something happens before the first result is read: its worker is a slow one."""

    def __init__(self, settings: StorageSettings, interruption: Callable[[], object]) -> None:
        super().__init__(settings)
        self._interruptions = [interruption]

    def head(self, key: str) -> ObjectInfo:
        if key.endswith(".json") and self._interruptions:
            self._interruptions.pop()()
        return super().head(key)


def test_a_slow_worker_does_not_overwrite_the_results_of_the_recording_that_has_replaced_its_own(
    store_settings: StorageSettings, object_store: ObjectStore, folder: str
) -> None:
    newer: list[Job] = []

    def replace() -> None:
        newer.append(transcribed(f"{folder}/talk.mp3", object_store, recording=b"another sound"))
        put_beside(newer[0], "en", object_store)

    older = transcribed(f"{folder}/talk.mp3", object_store)

    put_beside(older, "en", Interrupted(store_settings, replace))

    there = lying_in(folder, object_store)
    assert [there[f"talk.en.{kind}"] for kind in ("json", "srt")] == [
        f"{kind} of {newer[0].job_id}".encode() for kind in ("json", "srt")
    ]


def failed(job: Job) -> Job:
    return msgspec.structs.replace(job, status=JobStatus.FAILED, error="there is no sound", error_code="x")


def test_why_a_recording_failed_lies_beside_it_until_it_is_replaced_by_one_that_does_not(
    object_store: ObjectStore, folder: str
) -> None:
    older = transcribed(f"{folder}/talk.mp3", object_store)
    note_end(failed(older), object_store)
    before = lying_in(folder, object_store)

    newer = transcribed(f"{folder}/talk.mp3", object_store, recording=b"another sound")
    put_beside(newer, "en", object_store)
    note_end(failed(older), object_store)  # Once more, late.

    assert before == {"talk.mp3": b"sound", "talk.mp3.error.txt": b"there is no sound\n"}
    assert "talk.mp3.error.txt" not in lying_in(folder, object_store)


def test_why_a_recording_failed_overwrites_nothing_and_is_not_told_of_what_is_gone(
    object_store: ObjectStore, folder: str
) -> None:
    object_store.put(f"{folder}/talk.mp3.error.txt", b"by hand", "text/plain")
    job = transcribed(f"{folder}/talk.mp3", object_store)
    gone = transcribed(f"{folder}/gone.mp3", object_store)
    object_store.delete(f"{folder}/gone.mp3")

    for one in (job, gone):
        note_end(failed(one), object_store)
    put_beside(job, "en", object_store)

    there = lying_in(folder, object_store)
    assert there["talk.mp3.error.txt"] == b"by hand"
    assert "gone.mp3.error.txt" not in there


def test_a_job_of_another_door_leaves_nothing_beside_its_source(object_store: ObjectStore, folder: str) -> None:
    job = transcribed(f"{folder}/talk.mp3", object_store)
    job = msgspec.structs.replace(job, source=msgspec.structs.replace(job.source, type="object"))

    put_beside(job, "en", object_store)

    assert list(lying_in(folder, object_store)) == ["talk.mp3"]
