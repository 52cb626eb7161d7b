"""Is it alive, is it ready, what is wrong.

`unhealthy` (503): Redis or the store does not answer, or Redis is full, so nothing can be accepted. `degraded` (200):
both answer, but no worker lives: jobs are accepted and wait. `ready` asks for Redis and the store only, for an API
without workers is to be sent requests all the same, and one whose Redis is full still answers reads.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Literal

import msgspec
import structlog
from litestar import Response, get
from litestar.openapi.datastructures import ResponseSpec

from actors.broker import queue_depths
from service import __version__
from service.backend import Backend
from storage.errors import QueueReadOnly, StorageError

log = structlog.get_logger()

#: A part that takes longer is taken for down.
_PATIENCE_SECONDS = 4

_STARTED = time.monotonic()


class Check(msgspec.Struct, frozen=True, kw_only=True):
    status: Literal["ok", "error"]
    #: A number where there is one to tell: live workers, messages in the queue.
    count: int | msgspec.UnsetType = msgspec.UNSET
    detail: str | msgspec.UnsetType = msgspec.UNSET


class Health(msgspec.Struct, frozen=True, kw_only=True):
    status: Literal["healthy", "degraded", "unhealthy"]
    version: str
    uptime_seconds: float
    checks: dict[str, Check]


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    status: Literal["ready", "not_ready"]
    checks: dict[str, Check]


class AsyncChecks(msgspec.Struct, frozen=True, kw_only=True):
    redis_connected: bool
    #: Those that gave a sign of life lately.
    workers: int
    #: Messages that wait, are in work or are delayed; null when Redis does not answer.
    queue_depth: int | None
    #: Why Redis takes nothing new, where it does not.
    detail: str | msgspec.UnsetType = msgspec.UNSET


class AsyncHealth(msgspec.Struct, frozen=True, kw_only=True):
    status: Literal["healthy", "degraded", "unhealthy"]
    checks: AsyncChecks


class Probe:
    """Asks the parts. One question at a time to each: who comes later gets the same answer, so that a part that hangs
    holds one thread and not one for every health check since.
    """

    def __init__(self, backend: Backend) -> None:
        self._questions: dict[str, Callable[[], int | None]] = {
            "redis": backend.jobs.check_writes,
            "redis_reads": backend.jobs.check,
            "storage": backend.objects.check,
            "workers": lambda: len(backend.jobs.workers()),
            "queue": lambda: sum(queue_depths(backend.broker).values()),
        }
        self._asked: dict[str, asyncio.Future[int | None]] = {}

    async def ask(self, *names: str) -> dict[str, Check]:
        return dict(zip(names, await asyncio.gather(*(self._ask(name) for name in names)), strict=True))

    async def _ask(self, name: str) -> Check:
        question = self._asked.get(name)
        if question is None or question.done():
            question = asyncio.get_running_loop().run_in_executor(None, self._questions[name])
            self._asked[name] = question
        try:
            count = await asyncio.wait_for(asyncio.shield(question), _PATIENCE_SECONDS)
        except TimeoutError:
            return Check(status="error", detail=f"no answer in {_PATIENCE_SECONDS} s")
        except QueueReadOnly as error:
            return Check(status="error", detail=str(error))
        except StorageError as error:
            # The code and not the message, which names internal hosts.
            log.warning("health check failed", part=name, reason=str(error))
            return Check(status="error", detail=error.code)
        return Check(status="ok", count=msgspec.UNSET if count is None else count)


def _unwell(kind: type[msgspec.Struct]) -> dict[int, ResponseSpec]:
    return {503: ResponseSpec(data_container=kind, description="A part does not answer.", generate_examples=False)}


@get("/health", summary="How it is", tags=["Health"], responses=_unwell(Health))
async def health(probe: Probe) -> Response[Health]:
    """503 when Redis or the store is down, or Redis is full; `degraded` with 200 when no worker lives."""
    checks = await probe.ask("redis", "storage", "workers", "queue")
    status: Literal["healthy", "degraded", "unhealthy"] = "healthy"
    if checks["redis"].status == "error" or checks["storage"].status == "error":
        status = "unhealthy"
    elif not checks["workers"].count:
        status = "degraded"
    told = Health(
        status=status, version=__version__, uptime_seconds=round(time.monotonic() - _STARTED, 1), checks=checks
    )
    return Response(told, status_code=503 if status == "unhealthy" else 200)


@get("/health/live", summary="Is the process alive", tags=["Health"])
async def live() -> dict[str, str]:
    """Touches nothing, so it answers at once whatever the load."""
    return {"status": "alive"}


@get("/health/ready", summary="Can it take requests", tags=["Health"], responses=_unwell(Readiness))
async def ready(probe: Probe) -> Response[Readiness]:
    """Redis and the store answer."""
    asked = await probe.ask("redis_reads", "storage")
    checks = {"redis": asked["redis_reads"], "storage": asked["storage"]}
    well = all(check.status == "ok" for check in checks.values())
    return Response(Readiness(status="ready" if well else "not_ready", checks=checks), status_code=200 if well else 503)


@get("/health/async", summary="Queue and workers", tags=["Health"], responses=_unwell(AsyncHealth))
async def asynchronous(probe: Probe) -> Response[AsyncHealth]:
    """Live workers are counted, not assumed: 503 when there is none, or no Redis, or a full one."""
    checks = await probe.ask("redis", "redis_reads", "workers", "queue")
    workers: Any = checks["workers"].count or 0
    depth: Any = checks["queue"].count
    connected = checks["redis_reads"].status == "ok"
    status: Literal["healthy", "degraded", "unhealthy"] = "unhealthy"
    if checks["redis"].status == "ok":
        status = "healthy" if workers else "degraded"
    told = AsyncHealth(
        status=status,
        checks=AsyncChecks(
            redis_connected=connected,
            workers=workers,
            queue_depth=None if depth is msgspec.UNSET else depth,
            detail=checks["redis"].detail if connected else msgspec.UNSET,
        ),
    )
    return Response(told, status_code=200 if status == "healthy" else 503)
