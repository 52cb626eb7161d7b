"""faster-whisper alone: a process with the worker's environment, settings and model, and a loop over files.

`python -m scripts.benchmarks.raw` reads a list of paths from each line of its input, transcribes them one after the
other and answers with the seconds that it took.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from faster_whisper import WhisperModel

from actors.engine import VAD, Engine, arguments
from actors.settings import ActorSettings
from deploy.environment import ROOT
from scripts.benchmarks.benchmark import BenchmarkFailed
from scripts.benchmarks.running import RunningStack
from storage import logs
from storage.job import Options
from storage.model_store import ModelStore
from storage.settings import StorageSettings, read_settings

#: Variables that change how fast the same code is.
_ALLOCATOR_AND_THREADS = re.compile(r"MALLOC_|GLIBC_TUNABLES|LD_PRELOAD|OMP_|MKL_|CT2_")


class RawEngine:
    """The process, from outside."""

    def __init__(self, process: "subprocess.Popen[str]", stack: RunningStack, log: Path) -> None:
        self._process = process
        self._stack = stack
        self._log = log
        self._sentence: str = self._answer()["sentence"]

    def seconds(self, paths: list[Path]) -> float:
        """From the first file's first byte to the last one's last segment."""
        assert self._process.stdin is not None
        print(json.dumps([str(path) for path in paths]), file=self._process.stdin, flush=True)
        return float(self._answer()["seconds"])

    def compared(self) -> str:
        """What both sides compute with, read from each."""
        assert self._stack.worker is not None
        found = re.findall(r'event="engine checked" sentence="([^"]*)"', self._stack.worker.log_path.read_text())
        worker = f"{found[-1] if found else 'unknown'}; {_variables(self._stack.worker.pid)}"
        raw = f"{self._sentence}; {_variables(self._process.pid)}"
        return f"both: {raw}" if worker == raw else f"worker: {worker} | raw: {raw}"

    def _answer(self) -> dict[str, str]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            said = " | ".join(self._log.read_text(errors="replace").splitlines()[-5:])
            raise BenchmarkFailed(f"raw faster-whisper ended with {self._process.wait()}: {said}")
        answer: dict[str, str] = json.loads(line)
        return answer


@contextmanager
def raw_engine(stack: RunningStack) -> Iterator[RawEngine]:
    """Ready: its model is loaded. It takes no time while it is not asked."""
    assert stack.worker is not None
    log = stack.plan.logs / "raw.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "scripts.benchmarks.raw"],
            cwd=ROOT,
            env={**os.environ, **stack.worker.part.env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        yield RawEngine(process, stack, log)
    finally:
        process.kill()
        process.wait()


def main() -> None:
    # To standard error: the answers go to standard output.
    logs.configure()
    storage, settings = read_settings(StorageSettings), read_settings(ActorSettings)
    options = Options(model=storage.default_model)
    engine = Engine(settings, ModelStore(storage, None).path)
    model = WhisperModel(
        str(ModelStore(storage, None).path(options.model)),
        device=engine.device,
        compute_type=engine.compute_type,
        cpu_threads=engine.threads,
        local_files_only=True,
    )
    told = {**arguments(settings, options), "vad_filter": options.vad_filter, "vad_parameters": VAD}
    print(json.dumps({"sentence": engine.self_check()}), flush=True)
    for line in sys.stdin:
        began = time.perf_counter()
        for path in json.loads(line):
            segments, _ = model.transcribe(path, language=options.language, **told)
            for _ in segments:
                pass
        print(json.dumps({"seconds": time.perf_counter() - began}), flush=True)


def _variables(pid: int) -> str:
    named = {name: value for name, value in psutil.Process(pid).environ().items() if _ALLOCATOR_AND_THREADS.match(name)}
    return ", ".join(f"{name}={value}" for name, value in sorted(named.items())) or "allocator as it comes"


if __name__ == "__main__":
    main()
