"""A recording in memory → its segments, through windows that are decoded in company.

The windows of a recording come back in any order and some of them twice: the rest of one that ended early, another try
of one that went wrong. Each window keeps its place until it is done, and segments leave in the order of time.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait

import msgspec

from actors.audio.decode import SAMPLE_RATE
from actors.batches import Batcher, Queue
from actors.decoder import CAREFUL_BEAM, CAREFUL_FEATURES, Decoded, Decoder, Piece, Request
from actors.result import Result
from actors.windows import Window
from storage.job import Options
from storage.transcript import Segment, Word

#: Windows of a job in queues and batches at once: enough for every thread, and few in memory.
_AHEAD = 24

#: Windows that vote on the language, and seconds that give one its whole vote.
VOTERS, _ENOUGH_SECONDS = 4, 5.0

#: A vote below this is unsure.
_SURE = 0.8

#: A window whose text fails its checks is sampled at these steps above the temperature asked for.
_TEMPERATURE_STEP = 0.2


class Place:
    """A window's place in its recording, until everything in it is written down."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.pieces: list[tuple[int, Piece]] = []
        self.done = False


class Recording:
    """One recording on its way through the batcher."""

    def __init__(
        self, batcher: Batcher[Request, Decoded], decoder: Decoder, windows: Iterable[Window], options: Options
    ) -> None:
        self._decoder = decoder
        self._options = options
        self._windows = iter(windows)
        self._queue: Queue[Request, Decoded] = batcher.open()
        self._places: deque[Place] = deque()
        self._pending: dict[Future[Decoded], Place] = {}
        self.language = options.language if decoder.multilingual else "en"
        #: 0.0 where there is no speech to have a language.
        self.language_probability = 1.0

    def close(self) -> None:
        self._queue.close()

    def segments(self) -> Iterator[Segment]:
        try:
            yield from self._segments()
        finally:
            self.close()

    def find_language(self) -> None:
        """Let the windows of a minute or two vote on the language, unless it is known. None: English, at 0.0."""
        self._fill(2 * VOTERS)
        if not self._places:
            self.language, self.language_probability = self.language or "en", 0.0
        if self.language is not None:
            return
        answers = {place: future.result() for future, place in self._pending.items()}
        self.language, self.language_probability = agreed(
            self._decoder, [(place.request.window, decoded.languages or {}) for place, decoded in answers.items()]
        )
        self._pending.clear()
        for place, decoded in answers.items():
            place.request = msgspec.structs.replace(place.request, language=self.language)
            if decoded.language == self.language:
                self._take(place, decoded)
            else:
                self._submit(place, place.request, first=True)

    def _segments(self) -> Iterator[Segment]:
        number = 0
        latest = 0.0
        while True:
            self._fill(_AHEAD)
            while self._places and self._places[0].done:
                place = self._places.popleft()
                for offset, piece in sorted(place.pieces, key=lambda each: each[0] + each[1].start * SAMPLE_RATE):
                    segment = segment_at(number, offset / SAMPLE_RATE, piece, latest)
                    if segment is not None:
                        latest = segment.end
                        number += 1
                        yield segment
            if not self._pending:
                if not self._places:
                    return
                continue
            for future in wait(self._pending, return_when=FIRST_COMPLETED).done:
                self._take(self._pending.pop(future), future.result())

    def _fill(self, ahead: int) -> None:
        while len(self._places) < ahead and (window := next(self._windows, None)) is not None:
            options = self._options
            request = Request(
                window=window,
                language=self.language,
                task=options.task if self._decoder.multilingual else "transcribe",
                prompt=options.prompt,
                hotwords=options.hotwords,
                words=options.timestamp_granularity == "word",
                details=options.segment_details,
                temperatures=(options.temperature,),
            )
            place = Place(request)
            self._places.append(place)
            self._submit(place, request)

    def _submit(self, place: Place, request: Request, *, first: bool = False) -> None:
        place.request = request
        key = self._decoder.batch_key(request)
        self._pending[self._queue.submit(key, request, self._decoder.decode, first=first)] = place

    def _take(self, place: Place, decoded: Decoded) -> None:
        """Keep what was heard, and see whether the window needs another look."""
        request = place.request
        if decoded.suspect:
            self._submit(place, _careful(request), first=True)
            return
        place.pieces += [(request.window.start, piece) for piece in decoded.pieces]
        if decoded.rest is None:
            place.done = True
            return
        rest = request.window.after(decoded.rest)
        self._submit(place, msgspec.structs.replace(request, window=rest), first=True)


def agreed(decoder: Decoder, heard: Sequence[tuple[Window, dict[str, float]]]) -> tuple[str, float]:
    """As `vote`, of windows with speech. Where it is unsure they are heard again, at length, and that counts."""
    voters = [each for each in heard if not each[0].doubtful] or heard
    language, probability = vote(voters)
    if not voters or probability >= _SURE:
        return language, probability
    return vote([(window, decoder.detect_language_again(window)) for window, _ in voters])


def vote(heard: Sequence[tuple[Window, dict[str, float]]]) -> tuple[str, float]:
    """The language that windows agree on, and its share of their votes; English with 0.0 where nothing was heard.

    A window weighs as much as it is long, up to 5 s: that is enough to know a language.
    """
    votes: dict[str, float] = {}
    for window, languages in heard:
        for language, probability in languages.items():
            votes[language] = votes.get(language, 0.0) + probability * min(window.seconds, _ENOUGH_SECONDS)
    if not votes:
        return "en", 0.0
    language = max(votes, key=votes.__getitem__)
    return language, votes[language] / sum(votes.values())


class Windowed:
    """The windowed engine of a worker: one batcher for the jobs of all its threads."""

    def __init__(self, threads: int) -> None:
        self._batcher: Batcher[Request, Decoded] = Batcher(threads)

    def transcribe(self, decoder: Decoder, windows: Iterable[Window], duration: float, options: Options) -> Result:
        """Transcribe a recording of `duration` seconds. Returns once the language is known; segments follow.

        Close `segments`, or read it to its end: until then the recording has its turn in the batches.
        """
        recording = Recording(self._batcher, decoder, windows, options)
        try:
            recording.find_language()
        except BaseException:  # Whatever ends it here: its turn in the batches is over.
            recording.close()
            raise
        return Result(
            recording.language or "en",
            recording.language_probability,
            duration,
            recording.segments(),
        )

    def close(self) -> None:
        self._batcher.close()


def _careful(request: Request) -> Request:
    """The same window in Whisper's own length, with the wider beam and rising temperatures."""
    start = request.temperatures[0]
    steps = math.floor((1.0 - start) / _TEMPERATURE_STEP + 1e-9)
    temperatures = tuple(round(start + step * _TEMPERATURE_STEP, 2) for step in range(steps + 1))
    return msgspec.structs.replace(
        request,
        window=msgspec.structs.replace(request.window, features=CAREFUL_FEATURES),
        beam_size=CAREFUL_BEAM,
        temperatures=temperatures,
        final=True,
    )


def segment_at(number: int, offset: float, piece: Piece, latest: float) -> Segment | None:
    """A piece in the recording's times, not before the end of the one before it; None if nothing is left of it."""

    def at(seconds: float, earliest: float, last: float) -> float:
        return min(max(round(offset + seconds, 3), earliest), last)

    start, end = at(piece.start, latest, math.inf), at(piece.end, 0.0, math.inf)
    if end <= start:
        return None
    # The decoder's attention may see a word end later than its segment.
    words = piece.words and [
        Word(word.word, at(word.start, start, end), at(word.end, start, end), word.confidence) for word in piece.words
    ]
    details = piece.details and msgspec.structs.replace(piece.details, seek=round(offset * 100))
    return Segment(number, start, end, piece.text, piece.confidence, words or None, details=details)
