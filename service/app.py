"""The application: every route, guard and error handler."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import structlog
from litestar import Litestar, Router
from litestar.config.cors import CORSConfig
from litestar.datastructures import State
from litestar.di import Provide

from service import (
    __version__,
    asr,
    asr_errors,
    catalogue,
    document,
    health,
    jobs,
    notifications,
    openai,
    results,
    transcribe,
    webhooks,
)
from service.auth import require_key
from service.backend import Backend
from service.body_rate import BodyRate
from service.content_coding import refuse_compressed
from service.errors import HANDLERS
from service.events import get_events
from service.inbox import Inbox
from service.limits import RATE_HEADERS, limit_rate, limit_wrong_keys, tell_rate
from service.openai_errors import shaped_by_address
from service.origin_check import read_hosts, require_known_host, require_own_origin
from service.request_id import HEADER, read_request_id, send_request_id
from service.security_headers import send_security_headers
from service.settings import ServiceSettings
from storage import logs
from storage.errors import StorageError
from storage.inbox import InboxIndex
from storage.rate_limit import LocalRateLimit, RateLimit
from storage.settings import StorageSettings, read_settings

log = structlog.get_logger()

#: Requests that talk to storage at once, each in a thread; more wait.
_THREADS = 32
#: A JSON body is a few fields; the forms have limits of their own.
_MAX_BODY_BYTES = 2**20
#: Wrong keys allowed to one address where RATE_LIMIT says nothing.
_WRONG_KEYS = "100/minute"


class Application(Litestar):
    """Binds a request id to the log lines of each request and limits how slowly its body may arrive."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        request_id = read_request_id(scope["headers"])
        scope.setdefault("state", {})["request_id"] = request_id
        if scope["method"] in ("POST", "PUT"):
            receive = self.state.body_rate.limited(receive)
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            await super().__call__(scope, receive, send)


def create_app() -> Litestar:
    """The API from its environment: `uvicorn --factory service.app:create_app`, or `python -m service`. No I/O.

    Raises:
        SettingsError: a setting is missing or cannot be used.
    """
    logs.configure()
    settings, storage_settings = read_settings(ServiceSettings), read_settings(StorageSettings)
    backend = Backend.connect(settings, storage_settings)
    rate_limit = RateLimit.connect(storage_settings, settings.rate_limit) if settings.rate_limit else None
    probe = health.Probe(backend)
    inbox = Inbox(backend, InboxIndex.connect(storage_settings))

    hosts, cors = read_hosts(settings, storage_settings), _cors(settings.cors_origins)
    # With API keys the host name does not matter: a page under a foreign name has no key.
    of_all = [*([] if settings.api_keys else [require_known_host(hosts)]), require_own_origin(hosts, cors)]
    counted = [limit_rate(rate_limit)] if rate_limit else []
    wrong_keys = LocalRateLimit(settings.rate_limit or _WRONG_KEYS)
    guards = [limit_wrong_keys(require_key(settings.api_keys), wrong_keys), *counted]
    api = Router(
        "/api/v1",
        guards=guards,
        route_handlers=[
            transcribe.transcribe,
            transcribe.transcribe_async,
            jobs.create_job,
            jobs.list_jobs,
            jobs.get_status,
            jobs.resume_upload,
            jobs.start_job,
            jobs.cancel_job,
            jobs.delete_job,
            get_events,
            results.get_transcript,
            webhooks.get_webhook,
            webhooks.put_webhook,
            webhooks.delete_webhook,
            webhooks.get_deliveries,
            webhooks.redeliver,
            catalogue.list_models,
            catalogue.list_languages,
        ],
    )
    events = Router(
        "/api/v1",
        guards=[limit_wrong_keys(notifications.require_token(settings, *counted), wrong_keys)],
        route_handlers=[notifications.take_notification],
    )
    openais = Router(
        "/v1",
        guards=guards,
        route_handlers=[
            openai.create_transcription,
            openai.create_translation,
            openai.list_models,
            openai.get_model,
        ],
    )
    asrs = Router("/", guards=guards, route_handlers=[asr.transcribe, asr.detect_language])
    return Application(
        guards=of_all,
        route_handlers=[
            api,
            asrs,
            openais,
            events,
            health.health,
            health.live,
            health.ready,
            health.asynchronous,
            asr.status,
            document.front_page,
            document.openapi_json,
            document.redoc,
            document.static_files,
        ],
        dependencies={
            "backend": Provide(lambda: backend, sync_to_thread=False),
            "probe": Provide(lambda: probe, sync_to_thread=False),
            "inbox": Provide(lambda: inbox, sync_to_thread=False),
        },
        state=State({"listeners": backend.listeners, "body_rate": _body_rate(settings)}),
        signature_types=[Backend, health.Probe, Inbox],
        exception_handlers=shaped_by_address(asr_errors.with_language(HANDLERS)),
        before_request=refuse_compressed,
        before_send=[tell_rate, send_request_id, send_security_headers],
        cors_config=cors,
        openapi_config=document.openapi_config(),
        request_max_body_size=_MAX_BODY_BYTES,
        lifespan=[_running(backend, rate_limit), lambda _: inbox.watched()],
        logging_config=None,
        debug=False,
    )


def _cors(origins: str) -> CORSConfig | None:
    allowed = [origin.strip() for origin in origins.split(",") if origin.strip()]
    if not allowed:
        return None
    return CORSConfig(
        allow_origins=allowed,
        allow_headers=["*"],
        expose_headers=["Location", "Retry-After", "X-Job-Id", "Content-Disposition", HEADER, *RATE_HEADERS],
    )


def _body_rate(settings: ServiceSettings) -> BodyRate:
    return BodyRate(settings.upload_idle_seconds, settings.min_upload_bytes_per_second)


def _running(
    backend: Backend, rate_limit: RateLimit | None
) -> Callable[[Litestar], AbstractAsyncContextManager[None, bool | None]]:
    """What lives as long as the server: its threads, and the bucket's preparation, which may have to wait."""

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS, "request"))
        preparing = asyncio.create_task(_prepare(backend))
        log.info("API started", version=__version__, keys=bool(backend.settings.api_keys))
        try:
            yield
        finally:
            preparing.cancel()
            await backend.events.close()
            if rate_limit is not None:
                await rate_limit.close()
            backend.uploads.close()

    return lifespan


async def _prepare(backend: Backend) -> None:
    """Make the bucket and its rules. The API serves meanwhile: health tells that the store is not there yet."""
    pause = 0.5
    while True:
        try:
            await asyncio.to_thread(backend.objects.prepare)
            log.info("bucket prepared", bucket=backend.storage_settings.s3_bucket)
            return
        except StorageError as error:
            log.warning("waiting for the store", reason=str(error))
            await asyncio.sleep(pause)
            pause = min(pause * 2, 15)
