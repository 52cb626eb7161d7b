"""`bucketscribe`, run as people and scripts run it, against the real server, store and worker."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pexpect
import pytest
import srt
import typer.main

from service import cli
from service.options import OptionFields
from service.subtitles import SubtitleFields
from storage.keys import source_key
from storage.object_store import ObjectStore
from storage.settings import StorageSettings
from tests.conftest import Sample
from tests.service.apis import Api
from tests.service.commands import in_terminal, run, start
from tests.service.conftest import StartApi
from tests.service.gate import Gate, gate_to
from tests.service.openai_client import says_fox

MIB = 2**20
ESCAPE = "\x1b"


@pytest.fixture
def folder(tmp_path: Path, speech: dict[str, list[Sample]]) -> Path:
    """Where the command is run: `talk.wav` lies there."""
    shutil.copy(next(sample.path for sample in speech["en"] if "fox" in sample.text), tmp_path / "talk.wav")
    return tmp_path


@pytest.fixture(scope="module")
def gate(store_settings: StorageSettings) -> Iterator[Gate]:
    with gate_to(store_settings.s3_endpoint_url) as opened:
        yield opened


@pytest.fixture
def gated_api(start_api: StartApi, quiet_settings: StorageSettings, gate: Gate) -> Iterator[Api]:
    """Cuts uploads above 5 MiB into parts; its links lead through the gate."""
    settings = msgspec.structs.replace(quiet_settings, s3_public_endpoint_url=gate.url)
    yield start_api(settings, SINGLE_UPLOAD_MAX_BYTES=str(5 * MIB))
    gate.allow(None)


def wait_until(true: Callable[[], object], seconds: float = 120) -> None:
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.05)


def newest(api: Api, status: str) -> dict[str, str]:
    """The newest job of the status, its id and its file's name; empty where there is none."""
    jobs = api.client.get("/api/v1/jobs", params={"status": status, "limit": 1}).json()["jobs"]
    return {"job_id": jobs[0]["job_id"], "filename": jobs[0]["source"]["filename"]} if jobs else {}


def status_of(api: Api, job_id: str) -> str:
    return str(api.client.get(f"/api/v1/status/{job_id}?include=").json()["status"])


def test_subtitles_come_into_a_file_and_progress_as_plain_lines(api: Api, folder: Path) -> None:
    done = run(api.url, folder, "transcribe", "talk.wav", "--model", "tiny.en", "-o", "talk.srt")

    assert (done.returncode, done.stdout) == (0, "")
    cues = srt.parse((folder / "talk.srt").read_text(), ignore_errors=False)
    assert says_fox(" ".join(cue.content for cue in cues))
    assert "talk.wav: 100 % sent\n" in done.stderr
    assert done.stderr.endswith("talk.wav → talk.srt\n")
    assert ESCAPE not in done.stderr
    assert not [path.name for path in folder.iterdir() if path.name.endswith(".part")]


def test_results_go_to_standard_output_and_nothing_else_does(api: Api, folder: Path) -> None:
    done = run(api.url, folder, "transcribe", "talk.wav", "-f", "json", "--timestamp-granularity", "word", "--quiet")

    transcript = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert says_fox(" ".join(word["word"] for segment in transcript["segments"] for word in segment["words"]))


def test_standard_input_is_streamed(api: Api, folder: Path) -> None:
    content = (folder / "talk.wav").read_bytes()

    done = run(api.url, folder, "transcribe", "-", "--filename", "mic.wav", stdin=content)

    assert done.returncode == 0, done.stderr
    assert says_fox(done.stdout)
    assert newest(api, "completed")["filename"] == "mic.wav"


def test_a_url_is_given_to_the_server(start_api: StartApi, quiet_settings: StorageSettings, tmp_path: Path) -> None:
    open_api = start_api(msgspec.structs.replace(quiet_settings, allowed_networks="127.0.0.0/8"))
    closed_api = start_api(quiet_settings)
    arguments = ("transcribe", "http://127.0.0.1:9/d%C3%A9bat.mp3", "--no-wait")

    taken, refused = (run(api.url, tmp_path, *arguments) for api in (open_api, closed_api))

    assert (taken.returncode, refused.returncode) == (0, 1)
    job = open_api.client.get(f"/api/v1/status/{taken.stdout.strip()}").json()
    assert (job["status"], job["source"]["filename"]) == ("pending", "débat.mp3")
    assert "(url_not_allowed)" in refused.stderr


def test_folders_keep_their_shape_and_a_bad_recording_is_told_while_the_others_come(api: Api, folder: Path) -> None:
    talks = folder / "talks"
    for name in ("Grüße 🎧.wav", "deep/er/talk.wav", "talk.wav", ".hidden.wav"):
        (talks / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "talk.wav", talks / name)
    (talks / "talk.mp3").write_bytes(b"no recording")
    (talks / "notes.txt").write_text("not looked at")

    done = run(api.url, folder, "transcribe", "talks", "-f", "text", "-o", "out/")
    again = run(api.url, folder, "transcribe", "talks", "-f", "text", "-o", "out", "--skip-existing")

    assert (done.returncode, done.stdout) == (1, "")
    written = {str(path.relative_to(folder / "out")) for path in (folder / "out").rglob("*") if path.is_file()}
    assert written == {"Grüße 🎧.txt", "deep/er/talk.txt", "talk.wav.txt"}
    assert says_fox((folder / "out/Grüße 🎧.txt").read_text())
    assert re.search(r"^talk\.mp3: .*\(audio_unreadable\)$", done.stderr, re.MULTILINE)
    assert again.returncode == 1
    assert "→" not in again.stderr


def test_several_texts_on_standard_output_have_headings(api: Api, folder: Path) -> None:
    shutil.copy(folder / "talk.wav", folder / "second.wav")

    done = run(api.url, folder, "transcribe", "talk.wav", "second.wav")
    many = run(api.url, folder, "transcribe", "talk.wav", "second.wav", "-f", "srt")

    assert re.findall("==> (.*) <==", done.stdout) == ["talk.wav", "second.wav"]
    assert many.returncode == 2
    assert "2 recordings as srt need a folder" in many.stderr


def test_a_terminal_shows_bars_and_the_text_as_it_comes(api: Api, folder: Path) -> None:
    terminal = in_terminal(api.url, folder, "transcribe", "talk.wav", "-o", "talk.vtt")

    terminal.expect("transcribing talk.wav")
    terminal.expect("0:00.*(quick|brown|fox|lazy|dog)")
    terminal.expect("talk.wav → talk.vtt")
    terminal.expect(pexpect.EOF)
    terminal.close()

    assert terminal.exitstatus == 0
    assert (folder / "talk.vtt").read_text().startswith("WEBVTT")


def test_a_mistake_in_the_command_ends_with_2(quiet_api: Api, folder: Path) -> None:
    asked = [
        ("transcribe", "talk.wav", "--format", "docx"),
        ("transcribe", "nowhere.wav"),
        ("transcribe", "talk.wav", "--model", "enormous"),
        ("transcribe", "talk.wav", "-f", "text", "-o", "talk.wav"),
        ("transcribe", "talk.wav", "-o", "talk.docx"),
        ("download", "01a203b845cddfe3ab439e", "-o", "talk.docx"),
        ("transcribe", "talk.wav", "-o", "nowhere/talk.txt"),
        ("download", "01a203b845cddfe3ab439e", "-o", "nowhere/talk.txt"),
        ("transcribe",),
        ("jobs", "--url", "localhost:18080"),
    ]

    ended = [run(quiet_api.url, folder, *arguments, COLUMNS="200") for arguments in asked]

    assert [done.returncode for done in ended] == [2 for _ in asked]
    assert "Usage: bucketscribe transcribe " in ended[0].stderr
    assert "Invalid value for '--format' / '-f': 'docx' is not one of" in ended[0].stderr
    assert "nowhere.wav is not there" in ended[1].stderr
    assert "'enormous' is not a known model; allowed: tiny, tiny.en" in ended[2].stderr
    assert "talk.wav is a recording" in ended[3].stderr
    assert ["no format ends with '.docx', only .json," in done.stderr for done in ended[4:6]] == [True, True]
    assert ["the folder nowhere is not there" in done.stderr for done in ended[6:8]] == [True, True]
    assert "Missing argument 'RECORDING" in ended[8].stderr
    assert "'localhost:18080' does not begin with http://" in ended[9].stderr
    assert not (folder / "nowhere").exists()


def test_no_server_and_a_wrong_key_end_with_3(
    start_api: StartApi, quiet_settings: StorageSettings, folder: Path
) -> None:
    guarded = start_api(quiet_settings, API_KEYS="right")

    nobody = run("http://127.0.0.1:9", folder, "transcribe", "talk.wav")
    wrong = run(guarded.url, folder, "jobs", BUCKETSCRIBE_API_KEY="wrong")
    right = run(guarded.url, folder, "jobs", "--api-key", "right")

    assert [done.returncode for done in (nobody, wrong, right)] == [3, 3, 0]
    assert "http://127.0.0.1:9 does not answer" in nobody.stderr
    assert "(unauthorized)" in wrong.stderr
    assert "wrong" not in wrong.stderr


def test_an_upload_killed_in_the_middle_goes_on_with_the_next_run(
    gated_api: Api, gate: Gate, quiet_store: ObjectStore, tmp_path: Path
) -> None:
    (tmp_path / "killed.wav").write_bytes(os.urandom(40 * MIB))
    arguments = ("transcribe", "killed.wav", "--no-wait", "--parallel", "1")
    gate.allow(20 * MIB)
    first = start(gated_api.url, tmp_path, *arguments)
    wait_until(lambda: newest(gated_api, "awaiting_upload").get("filename") == "killed.wav")
    job_id = newest(gated_api, "awaiting_upload")["job_id"]
    links = f"/api/v1/jobs/{job_id}/upload"
    wait_until(lambda: gated_api.client.get(links).json()["parts"][0]["uploaded"])
    first.kill()
    first.communicate()
    gate.cut()
    gate.allow(None)

    second = run(gated_api.url, tmp_path, *arguments)

    assert (second.returncode, second.stdout) == (0, f"{job_id}\n")
    assert 24 * MIB <= gate.passed < 32 * MIB
    assert quiet_store.get(source_key(job_id)) == (tmp_path / "killed.wav").read_bytes()
    assert status_of(gated_api, job_id) == "pending"


def test_an_interrupted_stream_leaves_no_job(quiet_api: Api, tmp_path: Path) -> None:
    with start(
        quiet_api.url, tmp_path, "transcribe", "-", "--filename", "stream.wav", stdin=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        process.stdin.write("sound" * 100_000)
        process.stdin.flush()

        process.send_signal(signal.SIGINT)
        code = process.wait(120)

    assert code == 130
    assert newest(quiet_api, "pending").get("filename") != "stream.wav"


def test_ctrl_c_during_an_upload_keeps_what_was_sent(gated_api: Api, gate: Gate, tmp_path: Path) -> None:
    (tmp_path / "halves.wav").write_bytes(bytes(20 * MIB))
    gate.allow(18 * MIB)
    sending = in_terminal(gated_api.url, tmp_path, "transcribe", "halves.wav", "--parallel", "1", "--no-wait")
    sending.expect("sending halves.wav")
    wait_until(lambda: newest(gated_api, "awaiting_upload").get("filename") == "halves.wav")
    links = f"/api/v1/jobs/{newest(gated_api, 'awaiting_upload')['job_id']}/upload"
    wait_until(lambda: gated_api.client.get(links).json()["parts"][0]["uploaded"])

    sending.sendintr()
    sending.expect("halves.wav: interrupted; the same command goes on with what is missing")
    sending.expect(pexpect.EOF)
    sending.close()

    assert sending.exitstatus == 130


def test_ctrl_c_in_a_terminal_asks_and_the_same_command_finds_its_job_again(quiet_api: Api, folder: Path) -> None:
    (folder / "talk.wav").rename(folder / "asked.wav")
    first = in_terminal(quiet_api.url, folder, "transcribe", "asked.wav")
    first.expect("transcribing asked.wav")
    job_id = newest(quiet_api, "pending")["job_id"]
    first.sendintr()
    first.expect("Cancel the job, too")
    first.sendline("n")
    first.expect(f"still at work: `status --wait {job_id}`")
    first.expect(pexpect.EOF)
    first.close()
    went_on = status_of(quiet_api, job_id)

    second = in_terminal(quiet_api.url, folder, "transcribe", "asked.wav")
    second.expect("transcribing asked.wav")
    second.sendintr()
    second.expect("Cancel the job, too")
    second.sendline("y")
    second.expect(f"asked.wav: job {job_id} cancelled")
    second.expect(pexpect.EOF)
    second.close()

    assert (first.exitstatus, went_on) == (130, "pending")
    assert (second.exitstatus, status_of(quiet_api, job_id)) == (130, "cancelled")
    assert newest(quiet_api, "pending").get("filename") != "asked.wav"


@pytest.mark.parametrize("answer", ["\x03", "\x04"], ids=["ctrl-c", "ctrl-d"])
def test_no_answer_to_the_question_leaves_the_job_at_work(quiet_api: Api, folder: Path, answer: str) -> None:
    terminal = in_terminal(quiet_api.url, folder, "transcribe", "talk.wav")
    terminal.expect("transcribing talk.wav")
    job_id = newest(quiet_api, "pending")["job_id"]
    terminal.sendintr()
    terminal.expect(re.escape("[y/N] "))

    terminal.send(answer)
    terminal.expect(f"still at work: `status --wait {job_id}`")
    terminal.expect(pexpect.EOF)
    terminal.close()

    assert (terminal.exitstatus, status_of(quiet_api, job_id)) == (130, "pending")


def test_an_interrupt_without_a_terminal_cancels_the_job(quiet_api: Api, folder: Path) -> None:
    (folder / "talk.wav").rename(folder / "piped.wav")
    process = start(quiet_api.url, folder, "transcribe", "piped.wav")
    wait_until(lambda: newest(quiet_api, "pending").get("filename") == "piped.wav")
    job_id = newest(quiet_api, "pending")["job_id"]
    assert process.stderr is not None
    assert process.stderr.readline() == "piped.wav: 100 % sent\n"

    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)

    assert process.returncode == 130
    assert said == f"piped.wav: job {job_id} cancelled\n"
    assert status_of(quiet_api, job_id) == "cancelled"


def test_jobs_are_listed_looked_at_cancelled_and_deleted(quiet_api: Api, folder: Path) -> None:
    made = run(quiet_api.url, folder, "transcribe", "talk.wav", "--no-wait", "--priority", "low")
    job_id = made.stdout.strip()

    listed = run(quiet_api.url, folder, "jobs", "--status", "pending", "--limit", "1")
    status = run(quiet_api.url, folder, "status", job_id)
    cancelled = run(quiet_api.url, folder, "cancel", job_id)
    again = run(quiet_api.url, folder, "cancel", job_id)
    as_json = run(quiet_api.url, folder, "status", job_id, "--json")
    deleted = run(quiet_api.url, folder, "delete", job_id)
    gone = run(quiet_api.url, folder, "status", job_id)

    assert [done.returncode for done in (made, listed, status, cancelled, again, as_json, deleted, gone)] == [
        *(0, 0, 0, 0, 1, 0, 0, 1)
    ]
    assert listed.stdout.startswith(f"{job_id}\tpending\t0\t")
    assert listed.stdout.endswith("\ttalk.wav\n")
    assert status.stdout.splitlines()[:2] == [f"job: {job_id}", "status: pending, 0 %"]
    assert "(job_conflict)" in again.stderr
    assert json.loads(as_json.stdout)["status"] == "cancelled"
    assert "(job_not_found)" in gone.stderr


def test_a_terminal_lists_jobs_as_a_table(quiet_api: Api, folder: Path) -> None:
    made = run(quiet_api.url, folder, "transcribe", "talk.wav", "--no-wait")

    terminal = in_terminal(quiet_api.url, folder, "jobs", "--limit", "1")
    terminal.expect("status.*recording")
    terminal.expect(f"{made.stdout.strip()} +pending +0 .*talk.wav")
    terminal.expect(pexpect.EOF)
    terminal.close()

    assert terminal.exitstatus == 0


def test_a_transcript_is_downloaded_in_any_format_later(api: Api, folder: Path) -> None:
    job_id = run(api.url, folder, "transcribe", "talk.wav", "--no-wait").stdout.strip()
    waited = run(api.url, folder, "status", "--wait", job_id)

    shown = run(api.url, folder, "download", job_id)
    saved = run(api.url, folder, "download", job_id, "-f", "vtt", "-o", ".")

    assert (waited.returncode, shown.returncode, saved.returncode) == (0, 0, 0)
    assert "status: completed, 100 %" in waited.stdout
    assert says_fox(shown.stdout)
    assert (folder / "talk.vtt").read_text().startswith("WEBVTT")


def panels(command: str) -> dict[str, str | None]:
    """A command's parameters → the panel of the help that has it."""
    group: Any = typer.main.get_command(cli.app)
    return {one.name: getattr(one, "rich_help_panel", None) for one in group.commands[command].params}


def test_whatever_option_a_job_has_the_command_has_too() -> None:
    # The form's own: the command asks for the format when it fetches the result.
    assert set(OptionFields.__struct_fields__) - {"response_format"} <= panels("transcribe").keys()


def test_subtitles_of_other_rules_can_be_downloaded() -> None:
    assert set(SubtitleFields.__struct_fields__) <= panels("download").keys()


def test_the_help_has_every_option_in_a_panel_of_its_kind(tmp_path: Path) -> None:
    transcribing, downloading = panels("transcribe"), panels("download")

    shown = run("http://127.0.0.1:9", tmp_path, "transcribe", "--help", COLUMNS="100").stdout

    assert [name for name, panel in transcribing.items() if panel is None] == ["recordings"]
    assert [name for name, panel in downloading.items() if panel is None] == ["job_id"]
    assert {transcribing[name] for name in SubtitleFields.__struct_fields__} == {"Subtitles"}
    assert re.findall(r"╭─ (\w+) ─", shown) == [
        *("Arguments", "Options", "Output", "Recognition", "Subtitles", "Job", "Server")
    ]
