"""faster-whisper alone, or our engine alone, in a process of its own: no queue, no store, a loop over files.

`python -m scripts.benchmarks.raw` reads requests, one a line, from its input, transcribes the files they name one after
the other and answers with what was heard and the seconds that it took. One model, loaded when it is first needed.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
import numpy as np
import psutil
from faster_whisper import BatchedInferencePipeline, WhisperModel
from faster_whisper.vad import VadOptions

from actors.audio.decode import decode
from actors.engine import STRETCH_SECONDS, Engine
from actors.sequential import arguments
from actors.settings import ActorSettings
from deploy.environment import ROOT
from scripts.benchmarks.benchmark import BenchmarkFailed
from scripts.benchmarks.running import RunningStack
from storage import logs
from storage.job import Options
from storage.model_store import ModelStore
from storage.settings import StorageSettings, read_settings

#: as the worker: faster-whisper, told what the sequential engine tells it. defaults: `WhisperModel.transcribe` and
#: nothing else. batched: `BatchedInferencePipeline.transcribe` and nothing else. engine: the worker's engine, alone.
How = Literal["as the worker", "defaults", "batched", "engine"]

Answer = TypeVar("Answer", bound=msgspec.Struct)

#: Speech in stretches no longer than the worker's.
_VAD = VadOptions(max_speech_duration_s=STRETCH_SECONDS)

#: Variables that change how fast the same code is.
_ALLOCATOR_AND_THREADS = re.compile(r"MALLOC_|GLIBC_TUNABLES|LD_PRELOAD|OMP_|MKL_|CT2_")


class Request(msgspec.Struct, frozen=True):
    paths: list[str]
    how: How
    #: None: detect.
    language: str | None


class Spoken(msgspec.Struct, frozen=True):
    """A segment: times in seconds."""

    start: float
    end: float
    text: str


class Heard(msgspec.Struct, frozen=True):
    #: From the first file's first byte to the last one's last segment.
    seconds: float
    #: A list a file.
    segments: list[list[Spoken]]

    def text(self, number: int = 0) -> str:
        return "".join(segment.text for segment in self.segments[number])


class Greeting(msgspec.Struct, frozen=True):
    #: What the process computes with.
    sentence: str


class RawEngine:
    """The process, from outside."""

    def __init__(self, process: "subprocess.Popen[bytes]", stack: RunningStack, log: Path) -> None:
        self._process = process
        self._stack = stack
        self._log = log
        self._sentence = self._answer(Greeting).sentence

    def hear(self, paths: Iterable[Path], how: How, language: str | None = "en") -> Heard:
        """
        Raises:
            BenchmarkFailed: the process ended.
        """
        assert self._process.stdin is not None
        request = Request([str(path) for path in paths], how, language)
        self._process.stdin.write(msgspec.json.encode(request) + b"\n")
        self._process.stdin.flush()
        return self._answer(Heard)

    def seconds(self, paths: list[Path]) -> float:
        """As the worker does it, the language to be detected."""
        return self.hear(paths, "as the worker", None).seconds

    def compared(self) -> str:
        """What both sides compute with, read from each."""
        found = re.findall(r'event="engine checked" sentence="([^"]*)"', self._stack.worker.log_path.read_text())
        worker = f"{found[-1] if found else 'unknown'}; {_described(speed_variables(self._stack.worker.pid))}"
        raw = f"{self._sentence}; {_described(speed_variables(self._process.pid))}"
        return f"both: {raw}" if worker == raw else f"worker: {worker} | raw: {raw}"

    def _answer(self, kind: type[Answer]) -> Answer:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            said = " | ".join(self._log.read_text(errors="replace").splitlines()[-5:])
            raise BenchmarkFailed(f"the raw engine ended with {self._process.wait()}: {said}")
        return msgspec.json.decode(line, type=kind)


@contextmanager
def raw_engine(stack: RunningStack, *, own_allocator: bool = False) -> Iterator[RawEngine]:
    """In the worker's environment; with `own_allocator` without what the worker sets for its speed.

    It takes no time while it is not asked.
    """
    env = {**os.environ, **stack.worker.part.env}
    if own_allocator:
        env = {name: value for name, value in env.items() if not _ALLOCATOR_AND_THREADS.match(name)}
        env |= {name: value for name, value in os.environ.items() if _ALLOCATOR_AND_THREADS.match(name)}
    log = stack.plan.logs / "raw.log"
    with log.open("a") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "scripts.benchmarks.raw"],
            cwd=ROOT,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
    try:
        yield RawEngine(process, stack, log)
    finally:
        process.kill()
        process.wait()


def speed_variables(pid: int) -> Mapping[str, str]:
    """The variables of a process that change how fast it computes."""
    environment = psutil.Process(pid).environ()
    return {name: value for name, value in environment.items() if _ALLOCATOR_AND_THREADS.match(name)}


def same_allocator(stack: RunningStack) -> bool:
    """Whether the worker runs with the variables of this process, so that there is nothing to tell apart."""
    return speed_variables(stack.worker.pid) == speed_variables(os.getpid())


def _described(variables: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(variables.items())) or "allocator as it comes"


# Inside the process


class Models:
    """What can be asked for, by how it is asked."""

    def __init__(self, storage: StorageSettings, settings: ActorSettings) -> None:
        self._settings = settings
        self._options = Options(model=storage.default_model)
        self._path = ModelStore(storage, None).path
        self.engine = Engine(settings, self._path)
        self._ways: dict[How, Callable[[str, str | None], Iterable[Any]]] = {
            "as the worker": self._as_the_worker,
            "defaults": lambda path, language: self._model.transcribe(path, language=language)[0],
            "batched": lambda path, language: self._batched.transcribe(path, language=language)[0],
            "engine": self._by_the_engine,
        }

    def hear(self, path: str, request: Request) -> list[Spoken]:
        found = self._ways[request.how](path, request.language)
        return [Spoken(float(segment.start), float(segment.end), segment.text) for segment in found]

    @cached_property
    def _model(self) -> WhisperModel:
        """On the worker's device, in its precision, on as many cores."""
        return WhisperModel(
            str(self._path(self._options.model)),
            device=self.engine.device,
            compute_type=self.engine.compute_type,
            cpu_threads=self.engine.threads,
            local_files_only=True,
        )

    @cached_property
    def _batched(self) -> BatchedInferencePipeline:
        return BatchedInferencePipeline(self._model)

    def _as_the_worker(self, path: str, language: str | None) -> Iterable[Any]:
        told = {**arguments(self._settings, self._options), "vad_filter": True, "vad_parameters": _VAD}
        segments: Iterable[Any] = self._model.transcribe(path, language=language, **told)[0]
        return segments

    def _by_the_engine(self, path: str, language: str | None) -> Iterable[Any]:
        with Path(path).open("rb") as file:
            samples = np.concatenate(list(decode(file)))
        options = msgspec.structs.replace(self._options, language=language)
        return self.engine.transcribe(samples, options).segments


def main() -> None:
    # To standard error: the answers go to standard output.
    logs.configure()
    models = Models(read_settings(StorageSettings), read_settings(ActorSettings))
    _say(Greeting(models.engine.self_check()))
    for line in sys.stdin.buffer:
        request = msgspec.json.decode(line, type=Request)
        began = time.perf_counter()
        heard = [models.hear(path, request) for path in request.paths]
        _say(Heard(time.perf_counter() - began, heard))


def _say(answer: msgspec.Struct) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
