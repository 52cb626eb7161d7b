"""The benchmark's own form: the figures are measured by people and CI, here only that there are any."""

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from scripts.benchmarks.__main__ import BENCHMARKS
from scripts.benchmarks.recordings import Clip
from scripts.benchmarks.speech import Voices, mixture
from scripts.benchmarks.words import repeated_phrases, word_errors
from tests.conftest import ROOT

FOUNDATION = {"upload", "overhead", "throughput", "poll"}
#: Benchmark → the figures that have a target.
LONG_RECORDINGS = {
    "long": {"memory_ratio", "first_segment_seconds"},
    "speed": {"over_defaults", "over_defaults_same_allocator", "over_batched", "wer_points_over_defaults"},
    "clip": {"over_raw"},
    "many": {"over_raw"},
    "scale": {"efficiency"},
    "fair": {"wait_chunks"},
    "quality": {"words_from_silence_and_noise", "repeats"},
    "languages": {"right_over_faster_whisper"},
    "recover": {"seconds", "seconds_restarted"},
}
DOORS = {
    "events": {"listeners", "kib_each", "threads"},
    "client": {"over_put"},
    "ingest": {"found_over_interval", "told_seconds"},
    "render": {"seconds", "over_textwrap"},
}


def test_a_benchmark_writes_its_figures_as_json_by_name(tmp_path: Path, weights_dir: Path) -> None:
    file = tmp_path / "figures.json"

    done = bench("poll", "--quick", "--json", str(file), MODEL_DIR=str(weights_dir), DEFAULT_MODEL="tiny.en")

    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(file.read_text())
    assert set(figures) == {"poll"}
    assert set(figures["poll"]) == {"per_second", "p50_ms", "p99_ms", "idle_per_second", "idle_p99_ms"}
    assert figures["poll"]["per_second"] > 0
    assert 0 < figures["poll"]["p50_ms"] <= figures["poll"]["p99_ms"]
    assert "poll         per_second" in done.stdout


def test_a_short_clip_is_measured_against_the_bare_engine(tmp_path: Path, weights_dir: Path) -> None:
    file = tmp_path / "figures.json"

    done = bench("clip", "--quick", "--json", str(file), MODEL_DIR=str(weights_dir), DEFAULT_MODEL="tiny.en")

    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(file.read_text())["clip"]
    assert set(figures) == {"over_raw", "service_ms", "raw_ms"}
    assert figures["over_raw"] == pytest.approx(figures["service_ms"] / figures["raw_ms"], rel=0.01)
    assert "tiny.en, ENGINE=" in done.stdout


def test_every_benchmark_is_listed_with_its_targets() -> None:
    done = bench("--list")

    assert done.returncode == 0, done.stderr
    listed = {line.split()[0]: line for line in done.stdout.splitlines()}
    targets = LONG_RECORDINGS | DOORS
    assert set(listed) == set(BENCHMARKS) == {*FOUNDATION, *targets}
    for name, figures in targets.items():
        assert set(BENCHMARKS[name].targets) == figures
        assert all(figure in listed[name] for figure in figures)


def test_word_errors_count_what_was_said_not_how_it_is_written() -> None:
    same = word_errors("Mr. Brown has 2 dogs, OK?", "mister brown has two dogs OK")
    wrong = word_errors("one small dog ran home", "one dog ran home now again")

    assert (same.errors, same.words) == (0, 6)
    assert (wrong.errors, wrong.words) == (3, 5)


def test_words_of_a_language_without_spaces_are_its_characters() -> None:
    counted = word_errors("天地玄黄", "天地宇黄", "zh")

    assert (counted.errors, counted.words) == (1, 4)


def test_a_phrase_heard_again_and_again_is_found_once_unless_it_was_said_so() -> None:
    phrase = "we will be back in a moment "
    heard = "hello there " + 5 * phrase + "and goodbye to all of you"

    assert repeated_phrases("hello there " + phrase, heard) == [phrase.strip()]
    assert repeated_phrases("hello there " + 2 * phrase, heard) == []
    assert repeated_phrases("", "no one " + phrase + "so " + phrase) == []


def test_every_part_of_a_mixture_has_its_own_text_and_place() -> None:
    clips = [Clip(f"clip-{number}", "v", "en", f"text {number}", np.full(8000, 0.1, np.float32)) for number in range(4)]

    spoken = mixture(Voices(None, clips, []), 60)

    assert len(spoken.parts) >= 8
    assert spoken.recording.text == " ".join(text for *_, text in spoken.parts)
    assert all(end <= start for (_, _, end, _), (_, start, _, _) in pairwise(spoken.parts))
    assert spoken.parts[-1][2] <= spoken.recording.seconds


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
        timeout=900,
        check=False,
    )
