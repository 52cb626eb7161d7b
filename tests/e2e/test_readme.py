"""The README's own commands, run against the stack that its first command starts; only their ports are others."""

import http.server
import json
import re
import shutil
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import boto3
import redis
import srt
from playwright.sync_api import sync_playwright

from deploy.environment import read_file
from tests.conftest import ROOT, unavailable
from tests.deploy.test_up import Up
from tests.e2e.readme import NAMED_PORTS, README, blocks, commands, is_what_was_said, ports, shell


def test_every_port_in_the_readmes_code_gives_way_to_a_free_one() -> None:
    code = "".join(re.findall(r"^```\w+\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL))

    assert set(re.findall(r"\b\d{4,5}\b", code)) <= set(NAMED_PORTS)


def test_the_curl_commands_print_a_transcript_and_subtitles(up: Up, folder: Path) -> None:
    transcribe, subtitles = commands(next(block for block in blocks("bash") if "/transcribe" in block))

    answer = json.loads(shell(transcribe, folder))
    cues = list(srt.parse(shell(subtitles, folder), ignore_errors=False))

    assert is_what_was_said(answer["text"])
    assert is_what_was_said(" ".join(cue.content for cue in cues))


def test_the_python_example_prints_the_text_and_saves_the_subtitles(up: Up, folder: Path) -> None:
    example = next(block for block in blocks("python") if "transcribe-async" in block)

    done = subprocess.run([sys.executable, "-c", example], cwd=folder, capture_output=True, text=True, check=True)

    assert is_what_was_said(done.stdout)
    assert is_what_was_said(" ".join(cue.content for cue in srt.parse((folder / "talk.srt").read_text())))


def test_the_presigned_commands_upload_and_start_a_job(up: Up, folder: Path) -> None:
    block = next(block for block in blocks("bash") if "curl -T" in block)

    job = json.loads(shell(block, folder).splitlines()[-1])

    assert job["status"] == "pending"
    assert job["source"]["size"] == (folder / "talk.mp3").stat().st_size


def test_a_recording_in_the_bucket_is_transcribed_by_its_key(up: Up, folder: Path) -> None:
    stack = read_file(up.folder / "stack.env")
    bucket = boto3.client(
        "s3",
        endpoint_url=stack["S3_ENDPOINT_URL"],
        aws_access_key_id=stack["S3_ACCESS_KEY"],
        aws_secret_access_key=stack["S3_SECRET_KEY"],
        region_name="us-east-1",
    )
    bucket.put_object(Bucket="bucketscribe", Key="archive/talk.mp3", Body=(folder / "talk.mp3").read_bytes())
    (command,) = commands(next(block for block in blocks("bash") if "archive/talk.mp3" in block))

    job = json.loads(shell(command, folder))

    assert job["status"] == "pending"
    assert job["options"]["language"] == "en"


def test_the_page_uploads_straight_to_the_bucket_from_a_real_browser(up: Up, folder: Path) -> None:
    browser_path = shutil.which("chromium")
    if browser_path is None:
        unavailable("chromium is not installed")
    (page_source,) = blocks("html")
    page_port = ports()["9000"]
    (folder / "index.html").write_text(page_source)
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", page_port), handler) as server, sync_playwright() as playwright:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(240_000)
        page.goto(f"http://127.0.0.1:{page_port}/")

        page.set_input_files("#file", str(folder / "talk.mp3"))
        page.wait_for_function("document.querySelector('#text').textContent")
        shown = page.inner_text("#text")
        progress = page.evaluate("document.querySelector('#bar').value")

        browser.close()
        server.shutdown()

    assert is_what_was_said(shown)
    assert progress == 1


def test_the_model_commands_bring_weights_to_a_folder_and_to_the_bucket(up: Up, weights_dir: Path) -> None:
    to_folder, to_bucket = commands(next(block for block in blocks("bash") if "download_models" in block))

    # The environment of the tests in place of `.venv`, which a first scripts/up makes.
    told = [
        shell(f"{sys.executable} {command}", ROOT, BUCKETSCRIBE_DATA=str(up.folder))
        for command in (to_folder, to_bucket)
    ]

    assert "tiny.en" in told[0]
    assert "base" in told[1]


def test_the_recover_commands_bring_back_what_redis_lost(up: Up, folder: Path) -> None:
    transcribe, _ = commands(next(block for block in blocks("bash") if "/transcribe" in block))
    status = f"curl -s '{up.api}/api/v1/jobs?status=completed'"
    shell(transcribe, folder)
    before = json.loads(shell(status, folder))
    redis.Redis.from_url(read_file(up.folder / "stack.env")["REDIS_URL"]).flushall()
    look, do = commands(next(block for block in blocks("bash") if "scripts/recover" in block))

    # The environment of the tests in place of `.venv`, which a first scripts/up makes.
    told = [shell(command, ROOT, BUCKETSCRIBE_DATA=str(up.folder), PYTHON=sys.executable) for command in (look, do)]
    after = json.loads(shell(status, folder))

    assert [" to be recovered: " in told[0], " recovered: " in told[1]] == [True, True]
    assert before["total"] >= 1
    assert {job["job_id"] for job in before["jobs"]} <= {job["job_id"] for job in after["jobs"]}
