"""Webhooks over a real store, a real Redis and a real receiver; signatures are checked by Standard Webhooks' own."""

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import msgspec
import pytest
from standardwebhooks import WebhookVerificationError

from actors.notify import pause_seconds
from storage.webhooks import Endpoint, put_endpoint
from tests.actors.office import Office
from tests.receiver import Answer, Giant, Receiver, drip_body, drip_head, freeze, garbage, status


def test_the_end_of_a_job_is_posted_signed_and_without_its_transcript(office: Office, receiver: Receiver) -> None:
    job = office.completed(f"{receiver.url}/hook?of=alice")

    office.notifier.send_due()

    (posted,) = receiver.received
    content = posted.verified(office.secret())
    assert posted.path == "/hook?of=alice"
    assert posted.headers["content-type"] == "application/json"
    assert posted.headers["webhook-id"] == f"msg_{job.job_id}"
    assert (content["job_id"], content["status"], content["progress"]) == (job.job_id, "completed", 100)
    assert content["source"]["duration"] == 12.5
    assert set(content["files"]) == {"json", "srt"}
    assert not {"result", "partial", "upload"} & content.keys()
    assert "whsec_" not in posted.body.decode()


def test_a_signature_holds_for_this_body_and_this_secret_only(office: Office, receiver: Receiver) -> None:
    office.completed(receiver.url)
    office.notifier.send_due()
    (posted,) = receiver.received

    altered = msgspec.structs.replace(posted, body=posted.body.replace(b'"completed"', b'"cancelled"'))

    with pytest.raises(WebhookVerificationError):
        altered.verified(office.secret())
    with pytest.raises(WebhookVerificationError):
        posted.verified(office.secret("bob"))


def test_the_links_in_the_body_work(office: Office, receiver: Receiver) -> None:
    job = office.completed(receiver.url)
    office.objects.put(f"transcripts/{job.job_id}/transcript.srt", b"1\n", "application/x-subrip")

    office.notifier.send_due()

    link = receiver.received[0].verified(office.secret())["files"]["srt"]["url"]
    assert httpx.get(link).content == b"1\n"


@pytest.mark.parametrize("code", [200, 201, 204, 299])
def test_any_answer_of_success_ends_it(office: Office, receiver: Receiver, code: int) -> None:
    receiver.answers.append(status(code))
    job = office.completed(receiver.url)

    office.notifier.send_due()
    office.notifier.send_due()

    assert len(receiver.received) == 1
    assert [(attempt.status, attempt.error, attempt.next_at) for attempt in office.attempts(job.job_id)] == [
        (code, None, None)
    ]
    assert office.next_at(job.job_id) is None


def test_failures_are_followed_by_longer_and_longer_pauses_until_it_is_taken(
    office: Office, receiver: Receiver
) -> None:
    receiver.answers.extend([status(500), status(503), status(404), status(200)])
    job = office.completed(receiver.url)

    for _ in range(4):
        office.notifier.send_due()
        office.make_due(job.job_id) if office.next_at(job.job_id) else None

    attempts = office.attempts(job.job_id)
    assert [attempt.status for attempt in attempts] == [500, 503, 404, 200]
    assert len({posted.headers["webhook-id"] for posted in receiver.received}) == 1
    assert all(posted.verified(office.secret())["job_id"] == job.job_id for posted in receiver.received)
    for attempt, usual in zip(attempts, [5, 10, 20], strict=False):
        assert attempt.next_at is not None
        assert 0.75 * usual <= attempt.next_at - attempt.at - attempt.seconds <= 1.25 * usual + 0.01
    assert attempts[3].next_at is None


def test_a_pause_that_is_not_over_keeps_it_from_being_posted(office: Office, receiver: Receiver) -> None:
    receiver.answers.append(status(500))
    job = office.completed(receiver.url)
    office.notifier.send_due()

    office.notifier.send_due()
    office.notifier.post(job.job_id)

    assert len(receiver.received) == 1
    assert office.next_at(job.job_id) == office.attempts(job.job_id)[0].next_at


def test_pauses_double_up_to_an_hour_and_differ_by_chance() -> None:
    assert [pause_seconds(failures, 0.5) for failures in range(4)] == [5, 10, 20, 40]
    assert [pause_seconds(failures, 0.5) for failures in (9, 10, 1000)] == [2560, 3600, 3600]
    assert (pause_seconds(0, 0.0), pause_seconds(0, 1.0)) == (3.75, 6.25)


def test_after_a_day_it_is_given_up(office: Office, receiver: Receiver) -> None:
    receiver.answers.extend([status(500), status(500)])
    job = office.completed(receiver.url)
    office.notifier.send_due()
    tried_first = office.attempts(job.job_id)[0].at
    office.redis.hset(f"bs:delivery:{job.job_id}", "began", str(tried_first - 86_395))
    office.make_due(job.job_id)

    office.notifier.send_due()

    assert [attempt.next_at is None for attempt in office.attempts(job.job_id)] == [False, True]
    assert office.next_at(job.job_id) is None


def test_a_receiver_that_is_gone_is_posted_to_no_more(office: Office, receiver: Receiver) -> None:
    receiver.answers.append(status(410))
    job = office.completed(receiver.url)

    office.notifier.send_due()

    assert [(attempt.status, attempt.next_at) for attempt in office.attempts(job.job_id)] == [(410, None)]
    assert office.next_at(job.job_id) is None


def test_a_receiver_that_names_a_longer_pause_gets_it(office: Office, receiver: Receiver) -> None:
    receiver.answers.append(status(429, Retry_After="120"))
    job = office.completed(receiver.url)

    office.notifier.send_due()

    (attempt,) = office.attempts(job.job_id)
    assert attempt.next_at == pytest.approx(attempt.at + attempt.seconds + 120, abs=0.01)


def test_a_redirect_is_refused_and_not_followed(office: Office, receiver: Receiver) -> None:
    receiver.answers.append(status(307, Location=f"{receiver.url}/elsewhere"))
    job = office.completed(receiver.url)

    office.notifier.send_due()

    assert [posted.path for posted in receiver.received] == ["/"]
    (attempt,) = office.attempts(job.job_id)
    assert (attempt.status, attempt.error) == (307, "redirects are not followed")
    assert attempt.next_at is not None


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433"])
def test_a_private_address_is_not_connected_to(office: Office, receiver: Receiver, host: str) -> None:
    job = office.completed(receiver.url.replace("127.0.0.1", host))

    office.guarded("").send_due()

    assert receiver.received == []
    (attempt,) = office.attempts(job.job_id)
    assert attempt.status is None
    assert "not public" in (attempt.error or "")


@pytest.mark.parametrize("answer", [freeze, drip_head])
def test_a_receiver_that_does_not_come_to_an_end_is_left_after_its_time(
    office: Office, receiver: Receiver, answer: Answer
) -> None:
    receiver.answers.append(answer)
    job = office.completed(receiver.url)

    office.guarded(timeout_seconds=1).send_due()

    (attempt,) = office.attempts(job.job_id)
    assert (attempt.status, attempt.error) == (None, "no answer within 1 s")
    assert 1 <= attempt.seconds < 20
    assert attempt.next_at is not None


def test_a_receiver_that_keeps_us_waiting_is_waited_for_by_one_thread_only(office: Office, receiver: Receiver) -> None:
    receiver.answers.extend([freeze, freeze, status(200)])
    first, second, third = (office.completed(receiver.url) for _ in range(3))
    office.outbox.due("t")
    notifier = office.guarded(timeout_seconds=3)
    notifier.post(first.job_id)

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(notifier.post, second.job_id)
        receiver.wait_for(2)
        notifier.post(third.job_id)
        put_off_before_the_wait_was_over = not waiting.done()
    put_off_until = office.next_at(third.job_id)
    office.make_due(third.job_id)
    notifier.send_due()

    assert put_off_before_the_wait_was_over
    assert put_off_until is not None
    assert 14 < put_off_until - office.attempts(second.job_id)[0].at < 47
    assert [attempt.status for attempt in office.attempts(third.job_id)] == [200]


def test_a_body_that_drips_is_not_waited_for_and_what_was_said_counts(office: Office, receiver: Receiver) -> None:
    receiver.answers.append(drip_body)
    job = office.completed(receiver.url)

    office.guarded(timeout_seconds=1).send_due()

    (attempt,) = office.attempts(job.job_id)
    assert attempt.status == 200
    assert attempt.seconds < 20


def test_a_giant_answer_is_read_to_a_bound(office: Office, receiver: Receiver) -> None:
    giant = Giant()
    receiver.answers.append(giant)
    job = office.completed(receiver.url)

    office.notifier.send_due()

    assert [attempt.status for attempt in office.attempts(job.job_id)] == [200]
    # What the kernel takes on both sides, too.
    assert giant.sent < 16 * 2**20


def test_what_does_not_speak_http_and_who_is_not_there_are_tried_again(office: Office, receiver: Receiver) -> None:
    receiver.answers.append(garbage)
    odd, absent = office.completed(receiver.url), office.completed("http://127.0.0.1:9")

    office.notifier.send_due()

    told = [attempt for job in (odd, absent) for attempt in office.attempts(job.job_id)]
    assert [(attempt.error or "").partition(":")[0] for attempt in told] == [
        "the connection was closed without an answer, or it is not HTTP",
        "no connection",
    ]
    assert all(attempt.next_at for attempt in told)


def test_a_key_has_its_jobs_posted_to_its_webhook_and_a_job_may_name_another(
    office: Office, receiver: Receiver
) -> None:
    secret = "whsec_" + "c2VjcmV0" * 5
    put_endpoint("carol", Endpoint(url=f"{receiver.url}/carol", secret=secret), office.objects)
    office.completed(None, owner="carol")
    office.completed(f"{receiver.url}/own", owner="carol")
    office.completed(None, owner="dave")

    office.notifier.send_due()

    assert [posted.path for posted in receiver.received] == ["/carol", "/own"]
    assert [posted.verified(secret)["status"] for posted in receiver.received] == ["completed"] * 2
    assert office.redis.zcard("bs:outbox") == 0


def test_two_that_need_a_secret_at_once_get_the_same_one(office: Office) -> None:
    owner = f"new-{time.monotonic_ns()}"

    with ThreadPoolExecutor(4) as pool:
        secrets = set(pool.map(lambda _: office.secret(owner), range(8)))

    assert len(secrets) == 1


def test_a_job_asked_for_by_many_workers_at_once_is_posted_once(office: Office, receiver: Receiver) -> None:
    job = office.completed(receiver.url)
    office.outbox.due("t")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(office.notifier.post, [job.job_id] * 8))

    assert len(receiver.received) == 1


def test_no_address_and_no_secret_is_in_the_log(
    office: Office, receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    receiver.answers.append(status(500))
    office.completed(f"{receiver.url}/hook?token=hush")

    office.notifier.send_due()

    told = "".join(capsys.readouterr())
    assert "webhook failed" in told
    assert "hush" not in told
    assert "whsec_" not in told
