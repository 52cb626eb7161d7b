"""What the document says is what the server does: schemathesis asks, a real server answers."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.service.apis import Api

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
#: The routes that take a form and wait for its transcript: most of the time goes by in them. All others are one run.
WAITING = ["/transcribe", "/v1/audio/", "^/(asr|detect-language)"]


def test_the_server_answers_as_documented(api: Api, tmp_path: Path) -> None:
    # Processes, for CPython 3.11 cannot build syntax trees in several threads, which schemathesis does.
    chosen = [("--include-path-regex", part) for part in WAITING] + [("--exclude-path-regex", "|".join(WAITING))]

    with ThreadPoolExecutor(len(chosen)) as pool:
        runs = list(pool.map(lambda routes: ask(api, tmp_path, *routes), chosen))

    for run in runs:
        assert run.returncode == 0, run.stdout[-10_000:] + run.stderr
    assert "level=error" not in api.log()


def ask(api: Api, folder: Path, *routes: str) -> "subprocess.CompletedProcess[str]":
    program = Path(sys.executable).with_name("st")
    return subprocess.run(
        [
            program, "run", f"{api.url}/openapi.json", *routes, "--checks", CHECKS,
            "--phases", "examples,coverage,fuzzing", "--max-examples", "10", "--generation-deterministic",
            "--request-timeout", "240", "--warnings", "off", "--continue-on-failure", "--no-color",
        ],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
