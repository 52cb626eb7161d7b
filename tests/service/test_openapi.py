"""What the document says is what the server does: schemathesis asks, a real server answers."""

import subprocess
import sys
from pathlib import Path

from tests.service.apis import Api

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def test_the_server_answers_as_documented(api: Api, tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("st")

    run = subprocess.run(
        [
            program, "run", f"{api.url}/openapi.json", "--checks", CHECKS, "--phases", "examples,coverage,fuzzing",
            "--max-examples", "10", "--generation-deterministic", "--request-timeout", "30", "--warnings", "off",
            "--continue-on-failure", "--no-color",
        ],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert run.returncode == 0, run.stdout[-10_000:] + run.stderr
    assert "level=error" not in api.log()
