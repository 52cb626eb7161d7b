"""The OpenAPI document and its pages. Litestar writes most of it; here is what it cannot know.

The forms are read from a stream and the JSON body by our own decoder, so no handler's signature tells of them; and the
synchronous call answers in several media types.
"""

from copy import deepcopy
from pathlib import Path
from typing import Any

import msgspec
from litestar import Request, get
from litestar.config.response_cache import CACHE_FOREVER
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import OpenAPIRenderPlugin
from litestar.openapi.spec import Tag
from litestar.response import File, Redirect
from litestar.static_files import create_static_files_router

from actors.formats import FORMATS
from service import __version__
from service.options import NewJob, OptionFields
from service.results import EXTENSIONS
from service.transcribe import media_type

_STATIC = Path(__file__).parent / "static"
_SCHEMAS = "#/components/schemas/"

_DESCRIPTION = """
Recordings go into a bucket, transcripts and subtitles come out of it.

Errors are `application/problem+json` (RFC 9457) with a stable `code`. Times are ISO 8601 in UTC, audio times float
seconds, sizes bytes. Where API keys are set, send one as `Authorization: Bearer …` or `X-API-Key`.
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
            Tag(name="Jobs", description="Jobs and presigned uploads."),
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


static_files = create_static_files_router("/static", directories=[_STATIC], include_in_schema=False)


def complete(written: dict[str, Any]) -> dict[str, Any]:
    """Litestar's document with the bodies, the answers in other media types, and the keys."""
    document = deepcopy(written)
    paths, components = document["paths"], document["components"]
    _, schemas = msgspec.json.schema_components([NewJob, OptionFields], ref_template=_SCHEMAS + "{name}")
    components["schemas"].update(schemas)
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    for path, operations in paths.items():
        for operation in operations.values():
            # Litestar adds a 400 to whatever has parameters; ours are answered 422, which the routes say themselves.
            if "application/json" in operation["responses"].get("400", {}).get("content", {}):
                del operation["responses"]["400"]
            if path.startswith("/api/"):
                operation["security"] = [{}, {"bearer": []}, {"key": []}]

    paths["/api/v1/jobs"]["post"]["requestBody"] = {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"$ref": _SCHEMAS + "NewJob"},
                "example": {"source": {"type": "upload", "filename": "talk.mp3", "size": 1048576}, "language": "en"},
            }
        },
    }
    for path in ("/api/v1/transcribe", "/api/v1/transcribe-async"):
        paths[path]["post"]["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": _form()}}}
    _describe_synchronous(paths["/api/v1/transcribe"]["post"]["responses"])
    for extension, kind in EXTENSIONS.items():
        answer = paths[f"/api/v1/jobs/{{job_id}}/transcript.{extension}"]["get"]["responses"]["200"]
        answer["content"] = {media_type(kind.name): _transcript_schema(kind.name)}
    return document


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


def _transcript_schema(name: str) -> dict[str, Any]:
    return {"schema": {"$ref": _SCHEMAS + "Transcript"} if name == "json" else {"type": "string"}}
