"""One loaded Whisper model as a function of windows: a batch of windows in, what is said in each out.

Several jobs' windows may share a batch. A window that the fast way gets wrong says so (`Decoded.suspect`,
`Decoded.rest`); whether it is tried again, and how, is for the caller.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import ctranslate2
import msgspec
import numpy as np
from faster_whisper import WhisperModel
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import get_suppressed_tokens

from actors.audio.decode import SAMPLE_RATE
from actors.guards import UNHEARD_SECONDS, compression_ratio, guessed, invented, repeats, says_twice, silent, worded
from actors.timing import Timing, at_the_voice
from actors.windows import FEATURES_PER_SECOND, Shape, Window
from storage.transcript import Details, Word

#: Whisper's text and prompt share 448 tokens; a prompt gets less than half.
_MAX_TOKENS, _MAX_PROMPT = 448, 223

#: Tokens that a second of speech may take, in the scripts that need most, and some for timestamps.
_TOKENS_PER_SECOND, _SPARE_TOKENS = 24, 16

#: One candidate hears echoes and mixed voices wrong that two hear right (echo: 5.6 against 2.8 % word errors, base);
#: more than two gain nothing.
QUICK_BEAM = 2

#: A window that failed its checks: faster-whisper's own way, in Whisper's own length.
CAREFUL_FEATURES, CAREFUL_BEAM = 3000, 5

#: Candidates at a temperature above 0.
_BEST_OF = 5

#: Seconds in which the first word may begin, as steps of Whisper's timestamps.
_MAX_FIRST_TIMESTAMP = 50

_SECONDS_PER_TIMESTAMP = 0.02

#: Seconds of a window that must be written down for its rest to be tried: else a window could be tried without end.
_LEAST_PROGRESS = 0.5

_PREPENDED, _APPENDED = "\"'“¿([{-", "\"'.。,，!！?？:：”)]}、"


class Request(msgspec.Struct, frozen=True):
    """A window and how it is to be heard."""

    window: Window
    #: None: found in this window, and used.
    language: str | None
    task: str = "transcribe"
    #: Text before this window, to set style and spelling, and words to listen for.
    prompt: str | None = None
    hotwords: str | None = None
    words: bool = False
    details: bool = False
    beam_size: int = QUICK_BEAM
    #: Temperatures to try, in order, until the text passes its checks.
    temperatures: tuple[float, ...] = (0.0,)
    #: The last try: what comes out is taken, whatever the checks say.
    final: bool = False


class Piece(msgspec.Struct, frozen=True):
    """A segment in the times of its window, in seconds."""

    start: float
    end: float
    text: str
    #: Probability, 0.0 to 1.0.
    confidence: float
    words: list[Word] | None = None
    #: `seek` in the window's times too: 0.
    details: Details | None = None


class Decoded(msgspec.Struct, frozen=True):
    pieces: list[Piece]
    language: str
    #: Language → probability; only where the language was to be found.
    languages: dict[str, float] | None
    #: The text repeats itself, was guessed, or did not end: not to be trusted.
    suspect: bool
    #: Sample of the window from which on there is speech that was not written down.
    rest: int | None


class Decoder:
    """A loaded model. Calls from several threads run side by side where the model was loaded with several workers."""

    def __init__(self, whisper: WhisperModel, name: str) -> None:
        self.whisper = whisper
        self._on_cpu = whisper.model.device == "cpu"
        self.multilingual: bool = whisper.model.is_multilingual
        # The smallest models lose more to short windows than they gain.
        self.shape = Shape(28.0, 30.0) if name.startswith("tiny") else Shape(13.0, 15.0)
        self._tokenizer = lru_cache(maxsize=None)(self._make_tokenizer)

    def batch_key(self, request: Request) -> object:
        """Requests of equal keys may share a batch: windows and prompts of one length, one way of decoding."""
        prompt = self._previous(request)
        by_language = (request.language, request.task) if request.words else None
        return id(self), request.window.features, len(prompt), request.beam_size, request.temperatures, by_language

    def decode(self, requests: Sequence[Request]) -> list[Decoded]:
        """Hear windows whose keys are equal; one answer for each, in their order."""
        encoded = self._encode([request.window for request in requests])
        languages = self._languages(encoded, requests)
        tokenizers = [
            self._tokenizer(language, request.task) for request, (language, _) in zip(requests, languages, strict=True)
        ]
        prompts = [
            [*self._previous(request), *tokenizer.sot_sequence]
            for request, tokenizer in zip(requests, tokenizers, strict=True)
        ]
        texts = self._generate(encoded, requests, tokenizers, prompts)
        if any(request.words for request in requests):
            self._align(encoded, requests, tokenizers, texts)
        return [
            Decoded(text.pieces(), language, probabilities, text.suspect, text.rest)
            for text, (language, probabilities) in zip(texts, languages, strict=True)
        ]

    def detect_language(self, window: Window) -> dict[str, float]:
        """Language → probability, as heard in one window."""
        return self._probabilities(self._encode([window]))[0]

    def detect_language_again(self, window: Window) -> dict[str, float]:
        """As faster-whisper detects it, in 30 s.

        It pads features, not samples, which is right more often: "Ciao, mondo" is Italian by 0.59, not French by 0.32.
        """
        _, _, heard = self.whisper.detect_language(window.samples)
        return dict(heard)

    def _encode(self, windows: Sequence[Window]) -> ctranslate2.StorageView:
        extract = self.whisper.feature_extractor
        features = []
        for window in windows:
            samples = window.features * SAMPLE_RATE // FEATURES_PER_SECOND
            padding = max(0, samples - len(window.samples))
            features.append(extract(window.samples[:samples], padding=padding)[:, : window.features])
        if self._on_cpu and len(windows) > 1:
            # One at a time: a batch's buffers are larger than what the processor's cache and the allocator keep.
            heard = [np.asarray(self.whisper.encode(each)) for each in features]
            return ctranslate2.StorageView.from_array(np.concatenate(heard))
        return self.whisper.encode(np.stack(features))

    def _languages(
        self, encoded: ctranslate2.StorageView, requests: Sequence[Request]
    ) -> list[tuple[str, dict[str, float] | None]]:
        if not self.multilingual:
            return [("en", None)] * len(requests)
        if all(request.language for request in requests):
            return [(request.language or "", None) for request in requests]
        found = self._probabilities(encoded)
        return [
            (request.language, None) if request.language else (max(heard, key=heard.__getitem__), heard)
            for request, heard in zip(requests, found, strict=True)
        ]

    def _probabilities(self, encoded: ctranslate2.StorageView) -> list[dict[str, float]]:
        return [
            {token[2:-2]: probability for token, probability in heard}  # <|en|>
            for heard in self.whisper.model.detect_language(encoded)
        ]

    def _generate(
        self,
        encoded: ctranslate2.StorageView,
        requests: Sequence[Request],
        tokenizers: Sequence[Tokenizer],
        prompts: Sequence[list[int]],
    ) -> list["_Text"]:
        first = requests[0]
        seconds = first.window.features / FEATURES_PER_SECOND
        budget = min(_MAX_TOKENS // 2, round(seconds * _TOKENS_PER_SECOND) + _SPARE_TOKENS)
        tried: list[list[_Text]] = [[] for _ in requests]
        open_ = list(range(len(requests)))
        for temperature in first.temperatures:
            results = self.whisper.model.generate(
                encoded if len(open_) == len(requests) else _part(encoded, open_),
                [prompts[index] for index in open_],
                max_length=min(_MAX_TOKENS, len(prompts[0]) + budget),
                return_scores=True,
                return_no_speech_prob=True,
                suppress_blank=True,
                suppress_tokens=_suppressed(tokenizers[0]),
                max_initial_timestamp_index=_MAX_FIRST_TIMESTAMP,
                **_sampling(temperature, first.beam_size),
            )
            for index, result in zip(open_, results, strict=True):
                tried[index].append(_Text(result, requests[index], tokenizers[index], budget, temperature))
            open_ = [index for index in open_ if tried[index][-1].suspect]
            if not open_:
                break
        return [_best(texts, request.final) for texts, request in zip(tried, requests, strict=True)]

    def _align(
        self,
        encoded: ctranslate2.StorageView,
        requests: Sequence[Request],
        tokenizers: Sequence[Tokenizer],
        texts: Sequence["_Text"],
    ) -> None:
        """Give the segments their words, by the attention of the decoder; a tenth of the time on top."""
        # faster-whisper reads the first segment of each window.
        spoken = [index for index, text in enumerate(texts) if text.segments]
        if not spoken:
            return
        windows = [requests[index].window for index in spoken]
        self.whisper.add_word_timestamps(
            [texts[index].segments for index in spoken],
            tokenizers[0],
            encoded if len(spoken) == len(texts) else _part(encoded, spoken),
            [len(window.samples) * FEATURES_PER_SECOND // SAMPLE_RATE for window in windows],
            _PREPENDED,
            _APPENDED,
            0.0,
        )

    def _previous(self, request: Request) -> list[int]:
        """The prompt as tokens, the words to listen for first; what is too long loses its beginning."""
        encode = self._tokenizer("en", request.task).encode
        tokens: list[int] = []
        if request.hotwords:
            tokens += encode(" " + request.hotwords.strip())[: _MAX_PROMPT // 3]
        if request.prompt:
            tokens += encode(" " + request.prompt.strip())[-_MAX_PROMPT // 3 :]
        return [self._tokenizer("en", request.task).sot_prev, *tokens] if tokens else []

    def _make_tokenizer(self, language: str, task: str) -> Tokenizer:
        return Tokenizer(self.whisper.hf_tokenizer, self.multilingual, task=task, language=language)


class _Text:
    """What the model wrote for a window, cut into segments, and what speaks against it."""

    def __init__(self, result: Any, request: Request, tokenizer: Tokenizer, budget: int, temperature: float) -> None:
        tokens: list[int] = result.sequences_ids[0]
        window = request.window
        self._request = request
        self._tokenizer = tokenizer
        self._temperature = temperature
        # CTranslate2 divides by the number of tokens; Whisper counts the end too.
        self.log_probability: float = result.scores[0] * len(tokens) / (len(tokens) + 1)
        self.silence_probability: float = result.no_speech_prob
        self._text = text = tokenizer.decode(tokens)
        self.repeats = len(tokens) >= budget or repeats(text)
        #: start, end and tokens, time stamps included, as faster-whisper's alignment wants them.
        self.segments: list[dict[str, Any]] = []
        self.rest: int | None = None
        if silent(self.log_probability, self.silence_probability):
            self.suspect = False
            return
        # What is still said twice at a closer look was said twice.
        self.suspect = self.repeats or guessed(self.log_probability) or (not request.final and says_twice(text))
        heard_until = self._cut(tokens, window.seconds)
        after = round(heard_until * SAMPLE_RATE)
        if window.speech_between(after, len(window.samples)) > UNHEARD_SECONDS * SAMPLE_RATE:
            if heard_until > _LEAST_PROGRESS:
                self.rest = after
            elif not request.final:
                self.suspect = True

    def _cut(self, tokens: Sequence[int], seconds: float) -> float:
        """Fill `segments`. Returns the time up to which the window is written down, in seconds."""
        begin, end_of_text = self._tokenizer.timestamp_begin, self._tokenizer.eot
        text: list[int] = []
        opening: list[int] = []
        start, closed = 0.0, None
        for token in tokens:
            if token >= begin:
                time = min((token - begin) * _SECONDS_PER_TIMESTAMP, seconds)
                if text:
                    self._add(start, time, [*opening, *text, token])
                    text, closed = [], time
                start, opening = time, [token]
            elif token < end_of_text:
                text.append(token)
        if text and closed is None:
            self._add(start, seconds, [*opening, *text])
            return seconds
        # An unfinished last segment is dropped and heard again from its beginning on, as Whisper does.
        return closed or 0.0

    def _add(self, start: float, end: float, tokens: list[int]) -> None:
        if worded(self._tokenizer.decode(tokens), self.log_probability, self.silence_probability) and end > start:
            self.segments.append({"seek": 0, "start": start, "end": end, "tokens": tokens})

    def pieces(self) -> list[Piece]:
        if self._request.window.doubtful and invented(self._text, self.log_probability):
            return []
        confidence = round(min(float(np.exp(self.log_probability)), 1.0), 4)
        seconds = self._request.window.seconds
        details = self._details() if self._request.details else None
        pieces = []
        for segment in self.segments:
            words = _words(segment["words"], seconds) if self._request.words else None
            start, end = min(float(segment["start"]), seconds), min(float(segment["end"]), seconds)
            text = self._tokenizer.decode(segment["tokens"])
            timing = at_the_voice(Timing(start, end, words), text, self._request.window)
            known = details and msgspec.structs.replace(details, tokens=segment["tokens"])
            pieces.append(Piece(timing.start, timing.end, text, confidence, timing.words, known))
        return pieces

    def _details(self) -> Details:
        """What is known of the whole window, without a segment's tokens."""
        return Details(
            tokens=[],
            avg_logprob=round(self.log_probability, 4),
            compression_ratio=round(compression_ratio(self._text), 4),
            no_speech_prob=round(self.silence_probability, 4),
            temperature=self._temperature,
            seek=0,
        )


def _best(texts: Sequence[_Text], final: bool) -> _Text:
    """The first text that passed, else the most probable of those that do not repeat themselves."""
    if not texts[-1].suspect:
        return texts[-1]
    best = max([text for text in texts if not text.repeats] or texts, key=lambda text: text.log_probability)
    best.suspect = not final
    return best


def _words(found: Sequence[dict[str, Any]], seconds: float) -> list[Word]:
    """Words within the window, none beginning before the one before it ends."""
    words: list[Word] = []
    for word in found:
        start = min(max(float(word["start"]), words[-1].end if words else 0.0), seconds)
        end = min(max(float(word["end"]), start), seconds)
        words.append(Word(word["word"], start, end, min(max(round(float(word["probability"]), 4), 0.0), 1.0)))
    return words


def _sampling(temperature: float, beam_size: int) -> dict[str, Any]:
    if temperature == 0:
        return {"beam_size": beam_size}
    return {
        "beam_size": 1,
        "num_hypotheses": _BEST_OF,
        "sampling_topk": 0,
        "sampling_temperature": temperature,
    }


def _suppressed(tokenizer: Tokenizer) -> list[int]:
    return list(get_suppressed_tokens(tokenizer, [-1]))


def _part(encoded: ctranslate2.StorageView, indexes: Sequence[int]) -> ctranslate2.StorageView:
    """Some windows of an encoded batch."""
    on_cpu = encoded.to_device(ctranslate2.Device.cpu) if encoded.device != "cpu" else encoded
    part = ctranslate2.StorageView.from_array(np.ascontiguousarray(np.asarray(on_cpu)[list(indexes)]))
    return part.to_device(ctranslate2.Device.cuda) if encoded.device != "cpu" else part
