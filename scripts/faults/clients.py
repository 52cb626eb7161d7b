"""Clients that know only the HTTP contract and do not give up: what cannot be answered now is asked again later."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import httpx
import msgspec

from scripts.faults.speech import Known

#: A request that gets no answer for so long is taken for lost.
_TIMEOUT_SECONDS = 45
#: Longer than any outage of a run.
_PATIENCE_SECONDS = 300
FINAL = ("completed", "failed", "cancelled")


class GaveUp(Exception):
    """The service did not answer for longer than any fault lasts, or answered what no fault explains."""


class Accepted(msgspec.Struct, kw_only=True):
    """A job that was answered with 2xx: from then on it must not be lost."""

    job_id: str
    known: Known
    #: form, or link: put straight into the bucket.
    way: str
    final_at: float | None = None
    #: The final job with its transcript, as it was answered first.
    job: dict[str, Any] | None = None


class Client:
    """Safe to share between threads."""

    def __init__(self, api: str, seed: int) -> None:
        self._api = api
        self._chance = random.Random(seed)
        self._http = httpx.Client(timeout=_TIMEOUT_SECONDS, trust_env=False)
        #: What went otherwise than well and was tried again → how often.
        self.trouble: Counter[str] = Counter()

    def close(self) -> None:
        self._http.close()

    def submit(self, known: Known, way: str, priority: str) -> Accepted:
        """Returns when the job is accepted.

        Raises:
            GaveUp: it is not, in spite of much patience.
        """
        options = {**known.options, "priority": priority}
        job_id = self._by_form(known, options) if way == "form" else self._by_link(known, options)
        return Accepted(job_id=job_id, known=known, way=way)

    def status(self, job_id: str, include: str = "result,files") -> dict[str, Any] | None:
        """The job; None: there is no such job."""
        path = f"{self._api}/api/v1/status/{job_id}?include={include}"
        answer = self._patiently(partial(self._http.get, path), (200, 404))
        found: dict[str, Any] = answer.json()
        return found if answer.status_code == 200 else None

    def jobs(self) -> list[dict[str, Any]]:
        """Every job there is."""
        found: list[dict[str, Any]] = []
        cursor = ""
        while True:
            path = f"{self._api}/api/v1/jobs?limit=200&cursor={cursor}"
            page = self._patiently(partial(self._http.get, path)).json()
            found += page["jobs"]
            cursor = page["next_cursor"]
            if not cursor:
                return found

    def fetch(self, url: str) -> bytes:
        """What a link leads to."""
        return self._patiently(partial(self._http.get, url)).content

    def _by_form(self, known: Known, options: dict[str, str]) -> str:
        def post() -> httpx.Response:
            files = {"file": (known.filename, known.content)}
            return self._http.post(f"{self._api}/api/v1/transcribe-async", data=options, files=files)

        return str(self._patiently(post, (202,)).json()["job_id"])

    def _by_link(self, known: Known, options: dict[str, str]) -> str:
        source = {"type": "upload", "filename": known.filename, "size": len(known.content)}
        made = self._post("/jobs", {"source": source, **options}, (201,)).json()
        job_id: str = made["job_id"]
        links = made["upload"]
        while True:
            self._put(links, known.content)
            answer = self._post(f"/jobs/{job_id}/start", None, (202, 409))
            if answer.status_code == 202:
                return job_id
            # The store was killed and does not have all of it: send it again.
            self.trouble["upload incomplete"] += 1
            links = self._patiently(partial(self._http.get, f"{self._api}/api/v1/jobs/{job_id}/upload")).json()

    def _put(self, links: dict[str, Any], content: bytes) -> None:
        begin = 0
        for part in links.get("parts", [{**links, "size": len(content)}]):
            piece = content[begin : begin + part["size"]]
            begin += part["size"]
            self._patiently(partial(self._http.put, part["url"], content=piece, headers=links.get("headers", {})))

    def _post(self, path: str, body: object, expected: tuple[int, ...]) -> httpx.Response:
        return self._patiently(partial(self._http.post, f"{self._api}/api/v1{path}", json=body), expected)

    def _patiently(self, send: Callable[[], httpx.Response], expected: tuple[int, ...] = (200,)) -> httpx.Response:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            pause = self._chance.uniform(0.2, 1.0)
            try:
                answer = send()
            except httpx.TransportError as error:
                trouble = type(error).__name__
            else:
                if answer.status_code in expected:
                    return answer
                trouble = _told(answer)
                if answer.status_code < 500:
                    raise GaveUp(trouble)
                if answer.status_code == 503:
                    pause = min(float(answer.headers.get("Retry-After", pause)), 5.0)
            self.trouble[trouble] += 1
            if time.monotonic() + pause > deadline:
                raise GaveUp(f"{trouble} for {_PATIENCE_SECONDS} s")
            time.sleep(pause)


class Crowd:
    """Hands recordings in, one after another, never more than `at_once` of them unfinished, and follows each."""

    def __init__(self, client: Client, known: list[Known], jobs: int, at_once: int, seed: int) -> None:
        self._client = client
        chance = random.Random(seed)
        self._plan = [
            (recording, chance.choice(("form", "link")), chance.choice(("high", "normal", "normal", "low")))
            for recording in chance.choices(known, [one.weight for one in known], k=jobs)
        ]
        self._next = iter(self._plan)
        self._at_once = threading.Semaphore(at_once)
        self._lock = threading.Lock()
        self._over = threading.Event()
        self.accepted: list[Accepted] = []
        #: Why something was not handed in.
        self.given_up: list[str] = []
        self._threads = [threading.Thread(target=self._submit, name=f"client-{n}", daemon=True) for n in range(3)]
        self._threads.append(threading.Thread(target=self._follow, name="follower", daemon=True))

    @property
    def planned(self) -> int:
        return len(self._plan)

    @property
    def recordings(self) -> list[Known]:
        """Each one that is handed in, once."""
        return list({known.name: known for known, _, _ in self._plan}.values())

    @property
    def audio_seconds(self) -> float:
        return sum(known.seconds for known, _, _ in self._plan)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._over.set()

    def share_final(self) -> float:
        """Share of the planned jobs that are final or were given up, 0 to 1."""
        return (sum(one.final_at is not None for one in self.accepted) + len(self.given_up)) / self.planned

    def _submit(self) -> None:
        while not self._over.is_set():
            self._at_once.acquire()
            with self._lock:
                chosen = next(self._next, None)
            if chosen is None:
                self._at_once.release()
                return
            try:
                accepted = self._client.submit(*chosen)
            except GaveUp as reason:
                self.given_up.append(f"{chosen[0].name} by {chosen[1]}: {reason}")
                self._at_once.release()
            else:
                with self._lock:
                    self.accepted.append(accepted)

    def _follow(self) -> None:
        while not self._over.wait(0.3):
            for one in [one for one in list(self.accepted) if one.final_at is None]:
                try:
                    job = self._client.status(one.job_id, "")
                    if job is not None and job["status"] in FINAL:
                        job = self._client.status(one.job_id)
                except GaveUp:
                    continue  # The verdict asks once more.
                if job is not None and job["status"] in FINAL:
                    one.job, one.final_at = job, time.monotonic()
                    self._at_once.release()


def _told(answer: httpx.Response) -> str:
    code = ""
    if answer.headers.get("content-type", "").startswith("application/problem+json"):
        code = f" {answer.json().get('code')}"
    return f"{answer.status_code}{code} for {answer.request.method} {_route(answer.request.url.path)}"


def _route(path: str) -> str:
    """Without ids, so that equal things are counted together."""
    return "/".join("…" if len(part) == 22 else part for part in path.split("/"))
