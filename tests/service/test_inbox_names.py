"""Names of objects in the inbox: everyday ones are recordings, and of what cannot be used a file beside it says why."""

from functools import partial
from pathlib import Path

import httpx
import msgspec
import pytest

from service.inbox import read_prefix
from storage.job import JobStatus
from storage.settings import SettingsError, StorageSettings
from tests.conftest import Sample
from tests.service.apis import Api
from tests.service.conftest import StartApi
from tests.service.dropped import Dropped, minio
from tests.service.test_inbox import job_of
from tests.stack import Parts
from tests.storage.test_job_store import wait_until

#: Characters that print as nothing or as a space, and are in names that systems and people give.
EVERYDAY = {
    "narrow no-break space": "Screen Recording 2026-11-28 at 3.15.07\u202fPM.mp3",
    "ideographic space": "会議\u3000録音.mp3",
    "no-break space": "Interview\u00a0n°\u00a02.mp3",
    "joiner": "👩\u200d👧 family.mp3",
    "non-joiner": "می\u200cخواهم.mp3",
    "soft hyphen": "Donau\u00addampf.mp3",
    "right-to-left mark": "שלום\u200f.mp3",
    "right-to-left override": "a\u202e3pm.mp3",
    "line separator": "a\u2028b.mp3",
    "private use": "a\ue000b.mp3",
    "byte order mark": "\ufeffa.mp3",
    "decomposed": "Cafe\u0301.mp3",
}
UNUSABLE = {
    "tab": ("inbox/a\tb.mp3", "inbox/a%09b.mp3.error.txt", "control characters"),
    "line end": ("inbox/line\nend.mp3", "inbox/line%0Aend.mp3.error.txt", "control characters"),
    "escape": ("inbox/\x1b[31mred.mp3", "inbox/%1B[31mred.mp3.error.txt", "control characters"),
    "next line": ("inbox/a\x85b.mp3", "inbox/a%C2%85b.mp3.error.txt", "control characters"),
    "no character": ("inbox/a\ufffeb.mp3", "inbox/a%EF%BF%BEb.mp3.error.txt", "XML"),
}


@pytest.mark.parametrize("name", EVERYDAY.values(), ids=EVERYDAY)
def test_an_everyday_name_is_a_recording(dropped: Dropped, name: str) -> None:
    dropped.put(f"inbox/{name}")

    dropped.look_until(lambda: f"inbox/{name}" in dropped.jobs())

    assert dropped.jobs()[f"inbox/{name}"].status is JobStatus.PENDING


@pytest.mark.parametrize("name", EVERYDAY.values(), ids=EVERYDAY)
def test_an_everyday_name_may_be_a_jobs_source(quiet_api: Api, name: str) -> None:
    minio(quiet_api.settings).fput_object(quiet_api.settings.s3_bucket, f"archive/{name}", __file__)

    answer = quiet_api.client.post("/api/v1/jobs", json={"source": {"type": "object", "key": f"archive/{name}"}})

    assert (answer.status_code, answer.json()["source"]["key"]) == (201, f"archive/{name}")


@pytest.mark.parametrize(("key", "beside", "reason"), UNUSABLE.values(), ids=UNUSABLE)
def test_of_a_name_that_cannot_be_used_a_file_beside_it_says_why(
    dropped: Dropped, key: str, beside: str, reason: str
) -> None:
    dropped.backend.objects.put(key, b"sound", "audio/mpeg")

    dropped.look_until(lambda: key in dropped.jobs())
    dropped.settle()

    job = dropped.jobs()[key]
    assert (job.status, job.error_code) == (JobStatus.FAILED, "invalid_parameter")
    assert reason in (job.error or "")
    assert dropped.backend.objects.get(beside).decode() == f"{job.error}\n"


def test_a_notification_of_a_name_that_cannot_be_used_fails_its_job_too(dropped: Dropped) -> None:
    dropped.backend.objects.put("inbox/a\tb.mp3", b"sound", "audio/mpeg")

    job_id = dropped.inbox.take("inbox/a\tb.mp3")

    assert dropped.backend.jobs.get(job_id or "").error_code == "invalid_parameter"


def test_a_store_that_keeps_backslashes_apart_has_them_named(own_settings: StorageSettings, parts: Parts) -> None:
    """moto keeps a key as it was put, as S3 does. SeaweedFS makes slashes of them before it stores the object."""
    server = parts.start_moto()
    settings = msgspec.structs.replace(
        own_settings, s3_endpoint_url=server.url, s3_access_key="moto", s3_secret_key="moto"
    )
    dropped = Dropped(settings)
    dropped.backend.objects.prepare()
    keys = {"inbox/a\\b.mp3": "inbox/a%5Cb.mp3.error.txt", "inbox//c.mp3": "inbox/%2Fc.mp3.error.txt"}
    for key in keys:
        dropped.backend.objects.put(key, b"sound", "audio/mpeg")

    dropped.look_until(lambda: keys.keys() <= dropped.jobs().keys())
    dropped.settle()

    assert {dropped.jobs()[key].error_code for key in keys} == {"invalid_parameter"}
    assert {item.key for item in dropped.backend.objects.list("inbox/")} == {*keys, *keys.values()}
    server.running.kill()


@pytest.mark.parametrize("prefix", ["sources\\", "\\sources", "in//box", "a/../sources", "in\tbox", "x" * 1100])
def test_a_prefix_with_which_no_key_begins_is_refused(prefix: str) -> None:
    with pytest.raises(SettingsError, match="a key has"):
        read_prefix(prefix)


def is_completed(api: Api, name: str) -> bool:
    return (job_of(api, name) or {}).get("status") == "completed"


def test_everyday_names_are_transcribed_and_their_results_lie_beside_them(
    start_api: StartApi, api: Api, speech: dict[str, list[Sample]]
) -> None:
    quick_api = start_api(api.settings, INBOX_SECONDS="1")
    client, bucket = minio(quick_api.settings), quick_api.settings.s3_bucket
    for name in EVERYDAY.values():
        client.fput_object(bucket, f"inbox/names/{name}", str(speech["en"][0].path))
    stems, kinds = [Path(name).stem for name in EVERYDAY.values()], ("json", "srt", "vtt", "txt")
    wanted = {f"inbox/names/{stem}.en.{kind}" for stem in stems for kind in kinds}

    def there() -> set[str | None]:
        return {item.object_name for item in client.list_objects(bucket, "inbox/names/")}

    wait_until(lambda: wanted <= there(), 120)

    assert not [key for key in there() if (key or "").endswith(".error.txt")]
    for name in ("会議\u3000録音.mp3", "a\u202e3pm.mp3"):
        # Shown without the character that turns the rest of the name.
        shown = name.replace("\u202e", "")
        wait_until(partial(is_completed, quick_api, shown))
        job = job_of(quick_api, shown)
        assert job is not None
        link = quick_api.client.get(f"/api/v1/status/{job['job_id']}").json()["files"]["txt"]["url"]
        beside = client.get_object(bucket, f"inbox/names/{Path(name).stem}.en.txt").read()
        assert httpx.get(link).content == beside != b""
