"""Unmodified faster-whisper on stretches of speech: for speech in noise, and for jobs that ask for it.

Each stretch is contiguous, and what lies between two is never in one call: a segment cannot span what was left out,
and its times need no map.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import numpy as np
from faster_whisper import WhisperModel

from actors.audio.decode import SAMPLE_RATE
from actors.decoder import Decoder
from actors.guards import invented, silent, worded
from actors.settings import ActorSettings
from actors.timing import Timing, at_the_voice
from actors.windows import Window
from storage.job import Options
from storage.transcript import Details, Segment, Word

#: Tokens of the prompt, and of the hotwords, where there are both: with Whisper's marks less than half of its 448.
_PROMPT_TOKENS = 100


def segments(
    decoder: Decoder,
    stretches: Iterable[Window],
    language: str,
    settings: ActorSettings,
    options: Options,
    *,
    follow: bool,
) -> Iterator[Segment]:
    """What is said in the stretches.

    `follow`: within a stretch each of Whisper's windows is decoded after the text before it. Beyond a gap Whisper would
    repeat that text where it hears no other.
    """
    whisper = decoder.whisper
    told = arguments(settings, options) | _fitted(whisper, options, follow=follow)
    told["condition_on_previous_text"] = follow
    number, earliest = 0, 0.0
    for stretch in stretches:
        found, _ = whisper.transcribe(stretch.samples, language=language, **told)
        for segment in found:
            if not _spoken(segment, stretch):
                continue
            ours = _segment(number, segment, stretch, earliest)
            if options.segment_details:
                ours = msgspec.structs.replace(ours, details=_details(segment, stretch))
            number, earliest = number + 1, ours.end
            yield ours


def arguments(settings: ActorSettings, options: Options) -> dict[str, Any]:
    """Arguments of faster-whisper's `transcribe` besides sound and language. The benchmarks use the same."""
    return {
        "task": options.task,
        "beam_size": settings.beam_size,
        "temperature": _ladder(options.temperature),
        "initial_prompt": options.prompt,
        "hotwords": options.hotwords,
        "word_timestamps": options.timestamp_granularity == "word",
        # With it tiny.en lost whole sentences after long gaps (word errors 20.5 against 12.4 %, 176 s of read
        # sentences); base was even (8.4 against 9.0 %).
        "condition_on_previous_text": False,
    }


def _fitted(model: WhisperModel, options: Options, *, follow: bool) -> dict[str, str | None]:
    """Prompt and hotwords as far as both find room before the text: faster-whisper bounds each, but not their sum.

    The text before a window counts as a prompt. What is too long loses the beginning of the prompt and the end of the
    hotwords, as faster-whisper does.
    """
    if not options.hotwords or not (options.prompt or follow):
        return {}
    decode = model.hf_tokenizer.decode
    fitted = {"hotwords": decode(_tokens(model, options.hotwords)[:_PROMPT_TOKENS])}
    if options.prompt:
        fitted["initial_prompt"] = decode(_tokens(model, options.prompt)[-_PROMPT_TOKENS:])
    return fitted


def _tokens(model: WhisperModel, text: str) -> list[int]:
    return list(model.hf_tokenizer.encode(text, add_special_tokens=False).ids)


def _ladder(temperature: float) -> list[float]:
    """Where decoding starts and where it goes on when a window fails its checks: up to 1.0 in steps of 0.2."""
    return [round(temperature + 0.2 * step, 2) for step in range(6) if temperature + 0.2 * step <= 1.001]


def _spoken(heard: Any, stretch: Window) -> bool:
    """Whether it is speech; False for text that Whisper invents on music and noise."""
    log_probability, silence_probability = heard.avg_logprob, heard.no_speech_prob
    if silent(log_probability, silence_probability) or not worded(heard.text, log_probability, silence_probability):
        return False
    return not (stretch.doubtful and invented(heard.text, log_probability))


def _segment(number: int, heard: Any, stretch: Window, earliest: float) -> Segment:
    """faster-whisper's segment as ours: times from `earliest` to the stretch's end, in order, shares from 0 to 1."""
    words = None
    if heard.words is not None:
        words = [Word(word.word, word.start, word.end, _share(word.probability)) for word in heard.words]
    timing = at_the_voice(Timing(heard.start, heard.end, words), heard.text, stretch)
    offset = stretch.start / SAMPLE_RATE
    clock = _Clock(earliest, math.floor((offset + stretch.seconds) * 1000) / 1000)
    start = clock.tick(offset + timing.start)
    words = timing.words and [
        Word(word.word, clock.tick(offset + word.start), clock.tick(offset + word.end), word.confidence)
        for word in timing.words
    ]
    end = clock.tick(offset + timing.end)
    return Segment(number, start, end, heard.text, _share(float(np.exp(heard.avg_logprob))), words)


def _details(heard: Any, stretch: Window) -> Details:
    return Details(
        tokens=list(heard.tokens),
        avg_logprob=round(float(heard.avg_logprob), 4),
        compression_ratio=round(float(heard.compression_ratio), 4),
        no_speech_prob=_share(heard.no_speech_prob),
        temperature=float(heard.temperature),
        seek=heard.seek + round(stretch.start * 100 / SAMPLE_RATE),
    )


class _Clock:
    """Times in seconds that never go back and never pass the end: Whisper's may, by a few hundredths."""

    def __init__(self, earliest: float, last: float) -> None:
        self._now = earliest
        self._last = last

    def tick(self, seconds: float) -> float:
        self._now = max(self._now, min(round(float(seconds), 3), self._last))
        return self._now


def _share(probability: float) -> float:
    return round(min(max(float(probability), 0.0), 1.0), 4)
