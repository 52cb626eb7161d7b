"""The scripts that a person runs against a stack: their words and their exit codes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from actors import messages
from actors.broker import make_broker, queue_depths
from service.errors import KINDS
from storage.job import Job, JobStatus, Options, Source, new_job_id
from storage.job_store import JobStore
from storage.keys import source_key
from storage.models import MODELS
from storage.notes import note_job
from storage.object_store import ObjectStore
from storage.settings import StorageSettings

ROOT = Path(__file__).resolve().parent.parent


def test_purging_fails_the_jobs_that_wait_and_no_other(fresh_settings: StorageSettings) -> None:
    jobs = JobStore.connect(fresh_settings)
    broker = make_broker(fresh_settings)
    waiting, working, uploading = (
        enqueued(jobs, status) for status in (JobStatus.PENDING,) * 2 + (JobStatus.AWAITING_UPLOAD,)
    )
    for job_id in (waiting, working):
        messages.send(broker, job_id, "normal")
    jobs.claim(working, "a worker", lease_seconds=60, max_attempts=3)

    purge = run("purge_queue.py", fresh_settings, "--yes")

    assert (purge.returncode, purge.stdout) == (0, "✓ purged jobs: 1\n")
    purged = jobs.get(waiting)
    assert (purged.status, purged.error_code) == (JobStatus.FAILED, "purged")
    # A client that waits for it hears that, too.
    assert "purged" in KINDS
    assert purged.error == "the queue was purged before a worker began this job"
    assert jobs.get(working).status == JobStatus.PROCESSING
    assert jobs.get(uploading).status == JobStatus.AWAITING_UPLOAD
    assert not any(queue_depths(broker).values())


def test_purging_asks_first(fresh_settings: StorageSettings) -> None:
    jobs = JobStore.connect(fresh_settings)
    job_id = enqueued(jobs, JobStatus.PENDING)

    answers = [run("purge_queue.py", fresh_settings, answer=answer) for answer in ("n\n", "")]

    assert [answer.returncode for answer in answers] == [1, 1]
    assert "Fail the 1 jobs that wait? [y/N]" in answers[0].stdout
    assert jobs.get(job_id).status == JobStatus.PENDING


def test_what_was_purged_stays_failed_when_redis_is_lost(fresh_settings: StorageSettings) -> None:
    jobs, objects = JobStore.connect(fresh_settings), ObjectStore(fresh_settings)
    objects.prepare()
    purged, waiting = (enqueued(jobs, JobStatus.PENDING) for _ in range(2))
    for job_id in (purged, waiting):
        note_job(jobs.get(job_id), objects)
        objects.put(source_key(job_id), b"x", "audio/wav")
    jobs.claim(waiting, "a worker", lease_seconds=60, max_attempts=3)
    run("purge_queue.py", fresh_settings, "--yes")
    jobs._redis.flushall()

    tried = run("recover.py", fresh_settings, "--dry-run")
    done = run("recover.py", fresh_settings)
    again = run("recover.py", fresh_settings, "--json")

    assert tried.stdout == "2 to be recovered: 1 failed, 1 pending; 0 skipped\n", tried.stderr
    assert (done.returncode, done.stdout) == (0, "2 recovered: 1 failed, 1 pending; 0 skipped\n"), done.stderr
    assert [(job["job_id"], job["what"]) for job in json.loads(again.stdout)["jobs"]] == [
        (purged, "there"),
        (waiting, "there"),
    ]
    assert jobs.get(purged).error_code == "purged"
    assert jobs.get(waiting).status == JobStatus.PENDING


def test_recover_says_what_it_cannot_reach(fresh_settings: StorageSettings) -> None:
    nobody = run("recover.py", msgspec.structs.replace(fresh_settings, redis_url="redis://127.0.0.1:1"))
    without_bucket = run("recover.py", msgspec.structs.replace(fresh_settings, s3_bucket="nobody-made-it"))

    assert [done.returncode for done in (nobody, without_bucket)] == [1, 1]
    assert nobody.stderr.startswith("✗ Redis is not connected: ")
    assert without_bucket.stderr.startswith("✗ ")


def test_check_async_tells_what_is_missing(fresh_settings: StorageSettings) -> None:
    ObjectStore(fresh_settings).prepare()
    nobody = msgspec.structs.replace(fresh_settings, redis_url="redis://127.0.0.1:1")

    without_worker = run("check_async.py", fresh_settings)
    without_redis = run("check_async.py", nobody)
    without_bucket = run("check_async.py", msgspec.structs.replace(fresh_settings, s3_bucket="nobody-made-it"))

    assert [done.returncode for done in (without_worker, without_redis, without_bucket)] == [1, 1, 1]
    assert without_worker.stdout.startswith(
        "✓ Redis is connected\n✗ workers active: 0\n"
        "✓ queue transcribe-high: 0\n✓ queue transcribe-normal: 0\n✓ queue transcribe-low: 0\n"
        "✓ queue chunks-high: 0\n✓ queue chunks-normal: 0\n✓ queue chunks-low: 0\n✓ store: "
    )
    assert without_redis.stdout.startswith("✗ Redis is not connected: ")
    assert "\n✗ store: " in without_bucket.stdout


def test_the_scripts_name_a_setting_that_is_missing(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "BUCKETSCRIBE_DATA": str(tmp_path)}

    done = execute("check_async.py", environment)

    assert done.returncode == 1
    assert done.stdout == "✗ S3_ENDPOINT_URL is not set\n"


def test_the_scripts_ask_whether_the_embedded_stack_runs(tmp_path: Path) -> None:
    dead = {"S3_ENDPOINT_URL": "http://127.0.0.1:1", "REDIS_URL": "redis://127.0.0.1:1", "S3_ACCESS_KEY": "a"}
    (tmp_path / "stack.env").write_text("".join(f"{name}='{value}'\n" for name, value in dead.items()))
    environment = {"PATH": os.environ["PATH"], "BUCKETSCRIBE_DATA": str(tmp_path), "S3_SECRET_KEY": "b"}

    check = execute("check_async.py", environment)
    purge = execute("purge_queue.py", environment, "--yes")
    elsewhere = execute("check_async.py", environment | {"REDIS_URL": "redis://127.0.0.1:2"})

    assert [done.returncode for done in (check, purge, elsewhere)] == [1, 1, 1]
    assert [line.endswith("; is scripts/up running?") for line in check.stdout.splitlines()] == [True, True]
    assert purge.stderr.endswith("; is scripts/up running?\n")
    assert [line.endswith("; is scripts/up running?") for line in elsewhere.stdout.splitlines()] == [False, True]


@pytest.mark.parametrize("name", ["check_async.py", "download_models.py", "purge_queue.py", "recover.py"])
def test_a_script_explains_itself_without_a_stack(name: str, tmp_path: Path) -> None:
    done = execute(name, {"PATH": os.environ["PATH"], "BUCKETSCRIBE_DATA": str(tmp_path)}, "--help")

    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: {name} [-h]")


def test_a_default_model_that_is_none_is_named(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "BUCKETSCRIBE_DATA": str(tmp_path), "DEFAULT_MODEL": "huge"}

    done = execute("download_models.py", environment)

    assert done.returncode == 2
    assert done.stderr == f"✗ DEFAULT_MODEL: 'huge' is no model; there are {', '.join(MODELS)}\n"


@pytest.mark.parametrize("name", ["check_async.py", "download_models.py", "purge_queue.py", "recover.py"])
def test_a_script_finds_the_environment_of_up_by_itself(name: str, tmp_path: Path) -> None:
    for package in ("scripts", "deploy", "actors", "storage"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    bare = tmp_path / "bin"
    bare.mkdir()
    (bare / "python3").symlink_to(Path(sys.base_prefix) / "bin/python3")

    def plain() -> subprocess.CompletedProcess[str]:
        command = [str(tmp_path / "scripts" / name), "--help"]
        environment = {"PATH": f"{bare}:/usr/bin:/bin"}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=240)

    without = plain()
    (tmp_path / ".venv").symlink_to(sys.prefix)
    with_it = plain()

    assert without.returncode == 1
    assert without.stderr == "✗ the packages are not installed: run scripts/up once, which puts them into .venv\n"
    assert with_it.returncode == 0, with_it.stderr
    assert with_it.stdout.startswith(f"usage: {name} [-h]")


def test_an_environment_is_made_again_for_another_python(tmp_path: Path) -> None:
    lock, folder = tmp_path / "lock.txt", tmp_path / "venv"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/python").symlink_to(sys.executable)
    for path in (lock, folder / "lock.txt"):
        path.write_text("")
    other = tmp_path / "python3.99"
    other.write_text('#!/bin/sh\ncase "$*" in *print*) echo 3.99;; -m*) echo "asked for $*";; esac\n')
    other.chmod(0o755)

    def make(python: str) -> str:
        command = ["bash", "-c", f"source scripts/environment && make_environment '{lock}' '{folder}'"]
        environment = {"PATH": "/usr/bin:/bin", "PYTHON": python}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    kept = [make(""), make(sys.executable)]
    made = make(str(other))

    assert kept == ["", ""]
    assert f"Installing {lock} into {folder}" in made
    assert f"asked for -m venv {folder}" in made


def enqueued(jobs: JobStore, status: JobStatus) -> str:
    job_id = new_job_id()
    source = Source(type="form", key=f"sources/{job_id}/media", filename="a.mp3", size=1)
    options = Options(model="tiny.en")
    jobs.create(Job(job_id=job_id, owner="", status=status, source=source, options=options, created_at=1.0))
    return job_id


def run(name: str, settings: StorageSettings, *arguments: str, answer: str = "") -> subprocess.CompletedProcess[str]:
    given = {name.upper(): str(value) for name, value in msgspec.structs.asdict(settings).items() if value != ""}
    return execute(name, {**os.environ, **given}, *arguments, answer=answer)


def execute(
    name: str, environment: dict[str, str], *arguments: str, answer: str = ""
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / name), *arguments]
    return subprocess.run(
        command, env=environment, input=answer, capture_output=True, text=True, check=False, timeout=240
    )
