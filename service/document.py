"""The OpenAPI document and its pages. Litestar writes most of it; here is what it cannot know.

The forms are read from a stream and the JSON body by our own decoder, so no handler's signature tells of them; and the
synchronous call answers in several media types.
"""

from copy import deepcopy
from pathlib import Path
from typing import Any, get_args

import msgspec
from litestar import Request, get
from litestar.config.response_cache import CACHE_FOREVER
from litestar.connection import ASGIConnection
from litestar.exceptions import NotFoundException
from litestar.handlers import BaseRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import OpenAPIRenderPlugin
from litestar.openapi.spec import Tag
from litestar.response import File, Redirect
from litestar.static_files import create_static_files_router

from actors.formats import FORMATS
from actors.rules import Report
from service import __version__, asr_document, idempotency, openai_document
from service.events import JobEvent
from service.openai_errors import PREFIX
from service.options import NewJob, OptionFields
from service.results import EXTENSIONS
from service.subtitles import SubtitleFields
from service.transcribe import media_type
from service.webhooks import WebhookFields

_STATIC = Path(__file__).parent / "static"
_SCHEMAS = "#/components/schemas/"

#: Where an Idempotency-Key is heeded.
_MAKING_JOBS = (
    *("/api/v1/jobs", "/api/v1/transcribe", "/api/v1/transcribe-async", *asr_document.PATHS),
    *(f"{PREFIX}audio/transcriptions", f"{PREFIX}audio/translations"),
)
_IDEMPOTENCY_KEY = {
    "name": idempotency.HEADER,
    "in": "header",
    "description": "For 24 hours the same key makes the same job; with another recording or other options, 422.",
    "schema": {"type": "string", "minLength": 1, "maxLength": idempotency.MAX_CHARACTERS},
}

_DESCRIPTION = """
Recordings go into a bucket, transcripts and subtitles come out of it.

Errors are `application/problem+json` (RFC 9457) with a stable `code`. Times are ISO 8601 in UTC, audio times float
seconds, sizes bytes. Where API keys are set, send one as `Authorization: Bearer …`, `X-API-Key`, `api-key`
or the password of HTTP Basic.
"""


class _Page(OpenAPIRenderPlugin):
    """Swagger UI from our own files; it reads /openapi.json."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        return (_STATIC / "docs.html").read_bytes()


def openapi_config() -> OpenAPIConfig:
    return OpenAPIConfig(
        title="Bucketscribe",
        version=__version__,
        description=_DESCRIPTION.strip(),
        path="/docs",
        render_plugins=[_Page(path="/")],
        use_handler_docstrings=True,
        tags=[
            Tag(name="Transcription", description="A form with a recording: the classic API."),
            Tag(name="OpenAI's API", description="For programs that are written for it. Errors have its shape, too."),
            Tag(name="The /asr web service", description="For media servers that know whisper-asr-webservice."),
            Tag(name="Jobs", description="Jobs and presigned uploads."),
            Tag(name="Webhooks", description="Whoever waits for the end of a job is told of it."),
            Tag(name="Catalogue", description="Models and languages."),
            Tag(name="Health", description="For load balancers, orchestrators and people."),
        ],
    )


@get("/", status_code=302, include_in_schema=False, sync_to_thread=False)
def front_page() -> Redirect:
    return Redirect("/docs", status_code=302)


# One entry: by default each query string would be kept as another, for ever.
@get(
    "/openapi.json",
    include_in_schema=False,
    sync_to_thread=False,
    cache=CACHE_FOREVER,
    cache_key_builder=lambda _: "openapi.json",
)
def openapi_json(request: Request[Any, Any, Any]) -> dict[str, Any]:
    return complete(request.app.openapi_schema.to_schema())


@get("/redoc", include_in_schema=False, sync_to_thread=False)
def redoc() -> File:
    return File(_STATIC / "redoc.html", media_type="text/html", content_disposition_type="inline")


#: What lies under /static, so that no other path reaches the file system.
_STATIC_PATHS = frozenset(path.relative_to(_STATIC).as_posix() for path in _STATIC.rglob("*") if path.is_file())


def _require_known_file(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    if str(connection.path_params["file_path"]).removeprefix("/") not in _STATIC_PATHS:
        raise NotFoundException


static_files = create_static_files_router(
    "/static", directories=[_STATIC], guards=[_require_known_file], include_in_schema=False
)


def complete(written: dict[str, Any]) -> dict[str, Any]:
    """Litestar's document with the bodies, the answers in other media types, and the keys."""
    document = deepcopy(written)
    paths, components = document["paths"], document["components"]
    _, schemas = msgspec.json.schema_components(
        [NewJob, OptionFields, WebhookFields, Report], ref_template=_SCHEMAS + "{name}"
    )
    components["schemas"].update(schemas)
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        "azure": {"type": "apiKey", "in": "header", "name": "api-key"},
        "basic": {"type": "http", "scheme": "basic", "description": "The key is the password, of any user."},
    }
    for path, operations in paths.items():
        for operation in operations.values():
            # Litestar adds a 400 to whatever has parameters; ours are answered 422, which the routes say themselves.
            # OpenAI's errors are JSON too, but have a name.
            bad = operation["responses"].get("400", {}).get("content", {}).get("application/json")
            if bad is not None and "$ref" not in bad["schema"]:
                del operation["responses"]["400"]
            if path.startswith(("/api/", PREFIX, *asr_document.PATHS)):
                operation["security"] = [{}, *({scheme: []} for scheme in components["securitySchemes"])]

    paths["/api/v1/jobs"]["post"]["requestBody"] = {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"$ref": _SCHEMAS + "NewJob"},
                "example": {"source": {"type": "upload", "filename": "talk.mp3", "size": 1048576}, "language": "en"},
            }
        },
    }
    paths["/api/v1/webhook"]["put"]["requestBody"] = {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"$ref": _SCHEMAS + "WebhookFields"},
                "example": {"url": "https://example.com/transcripts"},
            }
        },
    }
    paths["/api/v1/events/s3"]["post"]["requestBody"] = {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"type": "object", "description": "As S3 or MinIO sends it, or SNS, SQS or EventBridge."},
                "example": {
                    "Records": [
                        {
                            "eventName": "ObjectCreated:Put",
                            "s3": {"bucket": {"name": "bucketscribe"}, "object": {"key": "inbox/my+talk.mp3"}},
                        }
                    ]
                },
            }
        },
    }
    for path in ("/api/v1/transcribe", "/api/v1/transcribe-async"):
        paths[path]["post"]["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": _form()}}}
    _describe_synchronous(paths["/api/v1/transcribe"]["post"]["responses"])
    for path in _MAKING_JOBS:
        paths[path]["post"].setdefault("parameters", []).append(_IDEMPOTENCY_KEY)
    asr_document.describe(paths)
    openai_document.describe(paths, components["schemas"], _form(), _SCHEMAS + "{name}")
    paths["/api/v1/jobs/{job_id}/events"]["get"]["responses"]["200"] = {
        "description": "Server-Sent Events.",
        "content": {"text/event-stream": {"schema": _event_schema()}},
    }
    for extension, kind in EXTENSIONS.items():
        operation = paths[f"/api/v1/jobs/{{job_id}}/transcript.{extension}"]["get"]
        operation["responses"]["200"]["content"] = _transcript_content(kind.name)
        operation["parameters"] += _rule_parameters()
    return document


def _event_schema() -> dict[str, Any]:
    """Of each event, as OpenAPI 3.1 describes a stream."""
    fields = {
        "id": {"type": "string"},
        "event": {"type": "string", "enum": list(get_args(JobEvent.__annotations__["type"]))},
        "data": {"type": "string", "contentMediaType": "application/json"},
    }
    return {"type": "object", "required": list(fields), "properties": fields}


def _form() -> dict[str, Any]:
    """The form's fields: the options, where null is said by leaving out, and the file."""
    _, schemas = msgspec.json.schema_components([OptionFields])
    fields = {name: _without_null(field) for name, field in schemas["OptionFields"]["properties"].items()}
    file = {"type": "string", "format": "binary", "description": "The recording: audio, or video with sound."}
    return {
        "type": "object",
        "description": "Fields may come before or after the file. Unknown fields are ignored.",
        "required": ["file"],
        "properties": {"file": file, **fields},
    }


def _without_null(field: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in field.items() if name != "anyOf"}
    if kept.get("default", ...) is None:
        del kept["default"]
    for kind in field.get("anyOf", []):
        if kind != {"type": "null"}:
            kept.update(kind)
    if "enum" in kept:
        kept["enum"] = [value for value in kept["enum"] if value is not None]
    return kept


def _describe_synchronous(responses: dict[str, Any]) -> None:
    responses["200"] = {
        "description": "The transcript in the asked format.",
        "content": {media_type(name): _transcript_schema(name) for name in FORMATS},
    }
    responses["202"] = {
        "description": "The time ran out, or `Prefer: respond-async` was sent: the job, which goes on.",
        "content": {"application/json": {"schema": {"$ref": _SCHEMAS + "JobView"}}},
    }


def _rule_parameters() -> list[dict[str, Any]]:
    """The rules of subtitles as they stand in a query, which is read by our own decoder, too."""
    _, schemas = msgspec.json.schema_components([SubtitleFields])
    rules = {name: _without_null(field) for name, field in schemas["SubtitleFields"]["properties"].items()}
    return [
        {"name": name, "in": "query", "required": False, "description": rule.pop("description"), "schema": rule}
        for name, rule in rules.items()
    ]


def _transcript_content(name: str) -> dict[str, Any]:
    """Of a transcript's own address: in its format, or the report on it."""
    report = {"$ref": _SCHEMAS + "Report"}
    if name == "json":
        return {media_type(name): {"schema": {"anyOf": [_transcript_schema(name)["schema"], report]}}}
    return {media_type(name): _transcript_schema(name), media_type("json"): {"schema": report}}


def _transcript_schema(name: str) -> dict[str, Any]:
    return {"schema": {"$ref": _SCHEMAS + "Transcript"} if name == "json" else {"type": "string"}}
