"""Recordings as people have them, made by ffmpeg from real speech."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import imageio_ffmpeg
import pytest

from tests.conftest import Sample

#: A recording, a file ending that says which container, and options of ffmpeg → another recording.
Convert = Callable[..., bytes]

#: A picture beside the sound, as long as it.
PICTURE = ("-f", "lavfi", "-i", "testsrc2=size=160x120:rate=10", "-shortest")


@pytest.fixture(scope="session")
def spoken(speech: dict[str, list[Sample]]) -> bytes:
    """2.9 s of speech as a WAV of float samples."""
    return next(sample for sample in speech["en"] if sample.name == "quick_brown_fox").path.read_bytes()


@pytest.fixture
def convert(tmp_path: Path) -> Convert:
    def run(recording: bytes, ending: str, *options: str, before: tuple[str, ...] = ()) -> bytes:
        source, target = tmp_path / "source", tmp_path / f"target.{ending}"
        source.write_bytes(recording)
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", "-y", *before]
        subprocess.run([*command, "-i", str(source), *options, str(target)], check=True)
        return target.read_bytes()

    return run
