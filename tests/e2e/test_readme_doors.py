"""The README's doors, each by the commands that it names, against the stack that its first command starts."""

import json
import subprocess
import sys
from pathlib import Path

import httpx

from deploy.embedded.running import http_answers
from tests.deploy.test_up import Up
from tests.e2e.test_readme import blocks, commands, is_what_was_said, shell
from tests.storage.test_job_store import wait_until


def test_the_webhook_commands_bring_the_job_to_the_receiver(up: Up, folder: Path) -> None:
    ask, hand_in = commands(next(block for block in blocks("bash") if "-F webhook_url" in block))
    program = next(block for block in blocks("python") if "standardwebhooks" in block)
    secret = json.loads(shell(ask, folder))["secret"]
    with subprocess.Popen([sys.executable, "-c", program, secret], stdout=subprocess.PIPE, text=True) as receiver:
        assert receiver.stdout is not None

        job_id = json.loads(shell(hand_in, folder))["job_id"]
        told = receiver.stdout.readline().split()

        receiver.terminate()
    log = f"{up.api}/api/v1/jobs/{job_id}/deliveries"
    wait_until(lambda: httpx.get(log).json()["state"] == "delivered")
    assert told == [job_id, "completed", "json", "txt", "srt", "vtt", "tsv"]


def test_a_recording_at_a_url_is_fetched_and_transcribed(up: Up, folder: Path) -> None:
    (command,) = commands(next(block for block in blocks("bash") if '"type": "url"' in block))
    server = [sys.executable, "-m", "http.server", "9008", "--bind", "127.0.0.1"]
    with subprocess.Popen(server, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as origin:
        wait_until(lambda: http_answers(9008))

        status = f"{up.api}/api/v1/status/{json.loads(shell(command, folder))['job_id']}"
        wait_until(lambda: httpx.get(status).json()["status"] not in ("pending", "processing"), 60)

        origin.terminate()
    job = httpx.get(status).json()
    assert job["source"]["filename"] == "talk.mp3"
    assert job["source"]["size"] == (folder / "talk.mp3").stat().st_size
    assert is_what_was_said(job["result"]["text"])


def test_the_webhook_of_a_key_is_set_and_taken_back(up: Up, folder: Path) -> None:
    block = next(block for block in blocks("bash") if "-X PUT" in block and "/webhook" in block)

    answers = [json.loads(shell(command, folder)) for command in commands(block)]

    assert [answer["url"] for answer in answers] == ["http://localhost:9007/", None]
    assert answers[0]["secret"] == answers[1]["secret"]
