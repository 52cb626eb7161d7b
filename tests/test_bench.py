"""The benchmark's own form: the figures are measured by people and CI, here only that there are any."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT


def test_a_benchmark_writes_its_figures_as_json_by_name(tmp_path: Path, weights_dir: Path) -> None:
    file = tmp_path / "figures.json"

    done = bench("poll", "--quick", "--json", str(file), MODEL_DIR=str(weights_dir), DEFAULT_MODEL="tiny.en")

    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(file.read_text())
    assert set(figures) == {"poll"}
    assert set(figures["poll"]) == {"per_second", "p50_ms", "p99_ms", "idle_per_second", "idle_p99_ms"}
    assert figures["poll"]["per_second"] > 10
    assert 0 < figures["poll"]["p50_ms"] <= figures["poll"]["p99_ms"]
    assert "poll         per_second" in done.stdout


def test_an_unknown_benchmark_is_refused_with_the_names_there_are() -> None:
    done = bench("pole")

    assert done.returncode == 2
    assert "pole" in done.stderr
    assert "poll" in done.stderr


def bench(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """scripts/bench with this Python: it would make an environment of its own otherwise."""
    return subprocess.run(
        [str(ROOT / "scripts/bench"), *arguments],
        env={**os.environ, "PYTHON": sys.executable, **more},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
