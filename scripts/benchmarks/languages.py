"""The language of short clips, as the engine detects it and as faster-whisper does, without the service around it."""

from collections import Counter

from faster_whisper import WhisperModel

from actors.engine import Engine
from actors.settings import ActorSettings
from scripts.benchmarks import recordings
from scripts.benchmarks.benchmark import Bench, BenchmarkFailed
from scripts.benchmarks.running import running_stack
from scripts.benchmarks.speech import WHEEL_LANGUAGES, voices
from storage.job import Options
from storage.model_store import ModelStore
from storage.settings import StorageSettings, read_settings


def run(bench: Bench) -> dict[str, float]:
    with running_stack(bench.folder / "stack", workers=0) as stack:
        return _measured(bench, stack.plan.storage)


def _measured(bench: Bench, storage: StorageSettings) -> dict[str, float]:
    settings = read_settings(ActorSettings)
    if storage.default_model.endswith(".en"):
        raise BenchmarkFailed(f"the model {storage.default_model} knows English only")
    path = ModelStore(storage, None).path
    engine = Engine(settings, path)
    whisper = WhisperModel(
        str(path(storage.default_model)), device=engine.device, compute_type=engine.compute_type, local_files_only=True
    )
    options = Options(model=storage.default_model)
    clips: Counter[str] = Counter()
    right: Counter[str] = Counter()
    right_for_faster_whisper: Counter[str] = Counter()
    folder = voices(bench).folder
    for language in (*recordings.PROMPT_VOICES, *WHEEL_LANGUAGES):
        spoken = recordings.wheel_clips(language)
        if folder is not None and language in recordings.PROMPT_VOICES:
            spoken += recordings.prompts(folder, language)
        for clip in spoken[:1] if bench.quick else spoken:
            clips[language] += 1
            right[language] += engine.detect_language(clip.samples, options)[0] == language
            right_for_faster_whisper[language] += whisper.detect_language(clip.samples)[0] == language
        bench.say(
            f"{language}: {right[language]} of {clips[language]} right, {right_for_faster_whisper[language]} for"
            " faster-whisper"
        )
    return {
        "clips": clips.total(),
        "right": right.total(),
        "right_over_faster_whisper": right.total() / max(1, right_for_faster_whisper.total()),
    }
