"""What a recording in the inbox is transcribed with, and the problems that fail its job with a sentence."""

import msgspec
import pytest

from service.auth import owner_of
from service.inbox import Inbox
from storage.errors import StoreRefused
from storage.keys import ingested_key
from storage.object_store import ObjectInfo, ObjectStore
from storage.settings import StorageSettings
from tests.service.dropped import Dropped


def test_options_come_from_metadata_and_a_sidecar_goes_over_them(dropped: Dropped) -> None:
    dropped.put("inbox/talk.mp3.json", b'\xef\xbb\xbf{"language": "fr", "temperature": 0.4}')
    # A client's own metadata are none of our business.
    metadata = {"language": "DE", "timestamp-granularity": "word", "vad_filter": "false", "mtime": "1"}
    dropped.put("inbox/talk.mp3", metadata={**metadata, "prompt": "=?UTF-8?Q?K=C3=A4se?="})

    job_id = dropped.inbox.take("inbox/talk.mp3")

    options = dropped.backend.jobs.get(job_id or "").options
    assert (options.language, options.temperature, options.timestamp_granularity) == ("fr", 0.4, "word")
    assert (options.vad_filter, options.prompt, options.model) == (False, "Käse", "base")


@pytest.mark.parametrize(
    ("sidecar", "metadata", "sentence"),
    [
        (b"{", {}, "talk.mp3.json: it is not JSON"),
        (b"[]", {}, "talk.mp3.json: "),
        (b'{"a":' + b"[" * 60_000, {}, "talk.mp3.json: it is not JSON"),
        (b'{"langauge": "de"}', {}, "talk.mp3.json: langauge: "),
        (b'{"language": "xx"}', {"language": "de"}, "talk.mp3.json: language: 'xx' is not a known language"),
        (b'{"prompt": "' + b"x" * 65536 + b'"}', {}, "talk.mp3.json: it has 65550 bytes, the limit is 65536"),
        (None, {"response-format": "docx"}, "x-amz-meta-*: response_format: "),
    ],
)
def test_options_that_cannot_be_read_fail_the_job_with_a_sentence_that_says_where(
    dropped: Dropped, sidecar: bytes | None, metadata: dict[str, str], sentence: str
) -> None:
    if sidecar is not None:
        dropped.put("inbox/talk.mp3.json", sidecar)
    dropped.put("inbox/talk.mp3", metadata=metadata)

    job_id = dropped.inbox.take("inbox/talk.mp3")
    again = dropped.inbox.take("inbox/talk.mp3")

    job = dropped.backend.jobs.get(job_id or "")
    assert again == job_id
    assert (job.status, job.error_code, dropped.messages()) == ("failed", "invalid_parameter", 0)
    assert (job.error or "").startswith(sentence)
    assert job.expires_at is not None
    assert dropped.backend.objects.get("inbox/talk.mp3.error.txt").decode() == f"{job.error}\n"


@pytest.mark.parametrize(
    "prompt", ["=?undefined?q?x?=", "=?unicode_escape?q?=5Cud800?=", "=?utf-8?b?x?=", "=?none?q?x?="]
)
def test_metadata_whose_coding_cannot_be_read_are_taken_as_they_are(dropped: Dropped, prompt: str) -> None:
    dropped.put("inbox/talk.mp3", metadata={"prompt": prompt})

    job_id = dropped.inbox.take("inbox/talk.mp3")

    assert dropped.backend.jobs.get(job_id or "").options.prompt == prompt


@pytest.mark.parametrize("sidecar", [False, True])
def test_a_webhook_that_leads_to_a_private_address_fails_the_job(dropped: Dropped, sidecar: bool) -> None:
    url = "http://127.0.0.1/hook"
    if sidecar:
        dropped.put("inbox/talk.mp3.json", f'{{"webhook_url": "{url}"}}'.encode())
    dropped.put("inbox/talk.mp3", metadata={} if sidecar else {"webhook-url": url})

    job_id = dropped.inbox.take("inbox/talk.mp3")

    job = dropped.backend.jobs.get(job_id or "")
    assert (job.status, job.error_code, job.options.webhook_url) == ("failed", "url_not_allowed", None)
    assert (job.error or "").startswith(("x-amz-meta-*", "talk.mp3.json")[sidecar] + ": webhook_url: ")


class Withholding(ObjectStore):
    """A store that refuses names that it cannot have, and whose rules keep an object from the service."""

    def head(self, key: str) -> ObjectInfo:
        if key == "inbox/secret.wav" or len(key.rpartition("/")[2].encode()) > 255:
            raise StoreRefused(f"head {key}: the store answered 403")
        return super().head(key)


def withheld(dropped: Dropped) -> Inbox:
    return Inbox(msgspec.structs.replace(dropped.backend, objects=Withholding(dropped.settings)), dropped.index)


@pytest.mark.parametrize("length", [250, 251, 255])
def test_a_name_that_leaves_no_room_for_a_sidecars_is_taken(dropped: Dropped, length: int) -> None:
    key = f"inbox/{'x' * (length - 4)}.mp3"
    dropped.put(key)

    job_id = withheld(dropped).take(key)

    assert dropped.backend.jobs.get(job_id or "").status == "pending"


def test_an_object_that_is_refused_again_and_again_is_a_failed_job(dropped: Dropped) -> None:
    dropped.inbox = withheld(dropped)
    dropped.put("inbox/secret.wav")

    dropped.look_until(lambda: "inbox/secret.wav" in dropped.jobs())
    job = dropped.jobs()["inbox/secret.wav"]
    dropped.settle()

    assert (job.status, job.error_code, dropped.messages()) == ("failed", "storage_refused", 1)
    assert dropped.jobs() == {"inbox/secret.wav": job}
    assert (dropped.index.known([job.job_id]), dropped.index.waiting()) == ({job.job_id}, 0)


def test_a_problem_that_comes_up_after_the_job_was_made_does_not_fail_it(dropped: Dropped) -> None:
    dropped.put("inbox/talk.wav")
    job_id = dropped.inbox.take("inbox/talk.wav") or ""
    # What a kill -9 before the mark leaves; then somebody puts a sidecar.
    dropped.backend.objects.delete(ingested_key(job_id))
    dropped.forget()
    dropped.put("inbox/talk.wav.json", b"{")

    again = dropped.inbox.take("inbox/talk.wav")

    assert (again, dropped.backend.jobs.get(job_id).status) == (job_id, "pending")


def test_the_result_of_another_recording_is_no_sidecar(dropped: Dropped) -> None:
    dropped.put("inbox/talk.en.json", b'{"text": "..."}', {"bucketscribe-source": "0"})
    dropped.put("inbox/talk.en")

    job_id = dropped.inbox.take("inbox/talk.en")

    assert dropped.backend.jobs.get(job_id or "").status == "pending"


def test_a_recording_above_the_limit_fails_with_both_numbers(own_settings: StorageSettings) -> None:
    dropped = Dropped(msgspec.structs.replace(own_settings, max_file_size=4))
    dropped.put("inbox/talk.mp3", b"sound")

    job_id = dropped.inbox.take("inbox/talk.mp3")

    job = dropped.backend.jobs.get(job_id or "")
    assert (job.error_code, job.error) == ("file_too_large", "the recording has 5 bytes, the limit is 4")


def test_jobs_of_the_inbox_are_the_first_keys(own_settings: StorageSettings) -> None:
    dropped = Dropped(own_settings, api_keys="alice,bob")
    dropped.put("inbox/talk.mp3")

    job_id = dropped.inbox.take("inbox/talk.mp3")

    assert dropped.backend.jobs.get(job_id or "").owner == owner_of(b"alice")
