"""The README's doors, each by the commands that it names, against the stack that its first command starts."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import srt
from playwright.sync_api import sync_playwright

from deploy.embedded.running import http_answers
from tests.actors.subtitles import read_srt, read_vtt
from tests.conftest import ROOT, unavailable
from tests.deploy.test_up import Up
from tests.e2e.readme import blocks, commands, is_what_was_said, ports, shell
from tests.storage.test_job_store import wait_until


def test_the_webhook_commands_bring_the_job_to_the_receiver(up: Up, folder: Path) -> None:
    ask, hand_in = commands(next(block for block in blocks("bash") if "-F webhook_url" in block))
    program = next(block for block in blocks("python") if "standardwebhooks" in block)
    secret = json.loads(shell(ask, folder))["secret"]
    with subprocess.Popen([sys.executable, "-c", program, secret], stdout=subprocess.PIPE, text=True) as receiver:
        assert receiver.stdout is not None

        job_id = json.loads(shell(hand_in, folder))["job_id"]
        told = receiver.stdout.readline().split()

        # It tells what it got before it answers.
        log = f"{up.api}/api/v1/jobs/{job_id}/deliveries"
        wait_until(lambda: httpx.get(log).json()["state"] == "delivered")
        receiver.terminate()
    assert told == [job_id, "completed", "json", "txt", "srt", "vtt", "tsv"]


def test_a_recording_at_a_url_is_fetched_and_transcribed(up: Up, folder: Path) -> None:
    (command,) = commands(next(block for block in blocks("bash") if '"type": "url"' in block))
    port = ports()["9008"]
    server = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]
    with subprocess.Popen(server, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as origin:
        wait_until(lambda: http_answers(port))

        status = f"{up.api}/api/v1/status/{json.loads(shell(command, folder))['job_id']}"
        wait_until(lambda: httpx.get(status).json()["status"] not in ("pending", "processing"))

        origin.terminate()
    job = httpx.get(status).json()
    assert job["source"]["filename"] == "talk.mp3"
    assert job["source"]["size"] == (folder / "talk.mp3").stat().st_size
    assert is_what_was_said(job["result"]["text"])


def test_subtitles_are_laid_out_anew_and_reported_on(up: Up, folder: Path) -> None:
    block = next(block for block in blocks("bash") if "report=true" in block)

    vtt, _, report = shell(block, folder).partition("{")

    stored = read_srt((folder / "talk.srt").read_text())
    narrow = read_vtt(vtt)
    assert is_what_was_said(" ".join(line for cue in narrow for line in cue.lines))
    assert all(len(cue.lines) <= 2 and len(line) <= 42 for cue in stored for line in cue.lines)
    assert all(len(cue.lines) == 1 and len(cue.lines[0]) <= 32 for cue in narrow)
    assert json.loads("{" + report)["rules"]["max_characters_per_second"] == 12


def test_the_webhook_of_a_key_is_set_and_taken_back(up: Up, folder: Path) -> None:
    block = next(block for block in blocks("bash") if "-X PUT" in block and "/webhook" in block)

    answers = [json.loads(shell(command, folder)) for command in commands(block)]

    assert [answer["url"] for answer in answers] == [f"http://127.0.0.1:{ports()['9007']}/", None]
    assert answers[0]["secret"] == answers[1]["secret"]


def test_a_recording_put_into_the_inbox_has_its_subtitles_beside_it(up: Up, folder: Path) -> None:
    put, fetch = (
        next(block for block in blocks("bash") if name in block) for name in ("-T talk.mp3 http", "talk.en.srt")
    )
    # The reader stands beside `data`, where scripts/up keeps the keys.
    (folder / "data").symlink_to(up.folder)
    shell(put, folder)
    fetched: list[str] = []

    def is_there() -> bool:
        done = subprocess.run(["bash", "-ec", fetch], cwd=folder, capture_output=True, text=True, check=False)
        fetched.append(done.stdout)
        return done.returncode == 0

    wait_until(is_there)

    assert is_what_was_said(" ".join(cue.content for cue in srt.parse(fetched[-1])))


def test_the_command_line_brings_texts_and_subtitles(up: Up, folder: Path) -> None:
    (folder / "scripts").symlink_to(ROOT / "scripts")
    (folder / "recordings").mkdir()
    shutil.copy(folder / "talk.mp3", folder / "recordings")
    block = next(block for block in blocks("bash") if "scripts/bucketscribe" in block)

    # The environment of the tests in place of `.venv`, which a first scripts/up makes.
    told = [
        shell(command, folder, PYTHON=sys.executable, XDG_STATE_HOME=str(folder / "state"), BUCKETSCRIBE_URL=up.api)
        for command in commands(block)
    ]

    assert is_what_was_said(told[0])
    assert [(folder / name).is_file() for name in ("talk.srt", "subtitles/talk.vtt")] == [True, True]
    assert is_what_was_said((folder / "talk.txt").read_text())
    assert len([line for line in told[4].splitlines() if "\tcompleted\t100\t" in line]) >= 4


def test_the_python_client_brings_them_too(up: Up, folder: Path) -> None:
    example = next(block for block in blocks("python") if "service.client" in block)

    (folder / "example.py").write_text(example)
    told = shell(f"{sys.executable} example.py", folder, PYTHONPATH=str(ROOT), XDG_STATE_HOME=str(folder))

    size = (folder / "talk.mp3").stat().st_size
    lines = told.splitlines()
    assert f"{size} of {size} bytes" in lines
    assert any(is_what_was_said(line) for line in lines)
    assert (folder / "talk.srt").is_file()


def test_the_live_events_tell_the_text_and_end(up: Up, folder: Path) -> None:
    block = next(block for block in blocks("bash") if "curl -N" in block)

    told = [line.partition(": ") for line in shell(block, folder).splitlines()]

    names = [value for field, _, value in told if field == "event"]
    data = [json.loads(value) for field, _, value in told if field == "data"]
    assert names[:2] == ["status", "status"]
    assert names[-1] == "completed"
    assert is_what_was_said("".join(one["text"] for name, one in zip(names, data, strict=True) if name == "segment"))


def test_a_page_shows_the_text_while_it_comes(up: Up, folder: Path) -> None:
    browser_path = shutil.which("chromium")
    if browser_path is None:
        unavailable("chromium is not installed")
    (listen,) = blocks("js")
    run = f"job_id => {{ document.body.innerHTML = '<p id=text></p>'; {listen} window.events = events; }}"
    with (folder / "talk.mp3").open("rb") as recording:
        job_id = httpx.post(f"{up.api}/api/v1/transcribe-async", files={"file": recording}).json()["job_id"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(240_000)
        page.goto(f"http://localhost:{ports()['8000']}/health/live")

        page.evaluate(run, job_id)
        page.wait_for_function("window.events.readyState === EventSource.CLOSED")
        shown = page.inner_text("#text")

        browser.close()
    assert is_what_was_said(shown)


def test_the_asr_commands_answer_subtitles_and_the_language(up: Up, folder: Path) -> None:
    block = next(block for block in blocks("bash") if "/asr?" in block)

    subtitles, language = (shell(command, folder) for command in commands(block))

    assert is_what_was_said(" ".join(cue.content for cue in srt.parse(subtitles)))
    assert json.loads(language)["language_code"] == "en"


def test_the_request_sent_twice_with_its_key_is_one_job(up: Up, folder: Path) -> None:
    block = next(block for block in blocks("bash") if "Idempotency-Key" in block)

    first, again = (json.loads(shell(command, folder)) for command in commands(block))

    assert again["job_id"] == first["job_id"]


def test_openais_sdk_prints_the_transcript_and_then_while_it_comes(up: Up, folder: Path) -> None:
    example = next(block for block in blocks("python") if "from openai" in block)

    (folder / "example.py").write_text(example)
    verbose, _, streamed = shell(f"{sys.executable} example.py", folder).partition("\n")

    language, start, text = verbose.split(" ", 2)
    assert language == "english"
    assert float(start) < 1
    assert is_what_was_said(streamed)
    assert text.strip() in streamed
