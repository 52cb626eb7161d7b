"""The segments of a recording without chunks, told to those who listen while they are found."""

import time

import msgspec

from storage.errors import QueueUnavailable
from storage.job_store import Claim, JobStore
from storage.transcript import Segment

#: How long nothing is told after Redis did not answer: the work goes on meanwhile, and all is told then.
_AWAY_SECONDS = 2.5


class Telling:
    """What was told stays true: the transcript begins with it, whoever told it.

    A worker that takes over finds the same segments again, because decoding is exact, and goes on behind those that
    were told. Where it is not, at high temperatures or on another device, it goes on where they end.
    """

    def __init__(self, jobs: JobStore, claim: Claim) -> None:
        self._jobs = jobs
        self._claim = claim
        # With the first segment the language is noted. Without it nothing was told.
        before = jobs.told(claim.job.job_id) if claim.job.language else []
        #: The transcript's, as far as it is known.
        self.segments = list(before)
        self._told = self._again = len(before)
        self._found, self._same = 0, True
        self._language, self._probability = "", 0.0
        self._away_until = 0.0

    def add(self, segment: Segment, language: str, probability: float) -> None:
        """Tell the next segment, unless it was told, or another one in its place.

        Raises:
            JobFenced: the job was cancelled, deleted or taken over.
        """
        if self._is_new(segment):
            self.segments.append(msgspec.structs.replace(segment, id=len(self.segments)))
            self._language, self._probability = language, probability
            if time.monotonic() >= self._away_until:
                try:
                    self.finish()
                except QueueUnavailable:
                    self._away_until = time.monotonic() + _AWAY_SECONDS

    def finish(self) -> None:
        """All is told when this returns: before the transcript is stored, so that no other worker tells otherwise.

        Raises:
            QueueUnavailable: it is not told.
            JobFenced: as above.
        """
        if untold := self.segments[self._told :]:
            self._jobs.tell(self._claim, self._told, untold, self._language, self._probability)
            self._told = len(self.segments)

    def _is_new(self, segment: Segment) -> bool:
        number, self._found = self._found, self._found + 1
        before = self.segments[: self._again]
        if self._same and number < len(before):
            self._same = msgspec.structs.replace(segment, id=number) == before[number]
            if self._same:
                return False
        return self._same or segment.start >= before[-1].end
