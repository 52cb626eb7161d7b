"""What the OpenAPI document says of OpenAI's API: its forms, and the answers that are no JSON."""

from copy import deepcopy
from typing import Any, get_args

import msgspec

from actors.formats import FORMATS
from service.model_names import OPENAI_NAMES
from service.openai_answers import TextDelta, TextDone, Transcription, VerboseTranscription
from service.openai_errors import PREFIX
from service.openai_form import GRANULARITIES, Format
from service.transcribe import media_type
from storage.models import MODELS

_AUDIO = f"{PREFIX}audio/"


def describe(paths: dict[str, Any], schemas: dict[str, Any], form: dict[str, Any], reference: str) -> None:
    """Complete the routes. `form`: the classic one; `reference`: where schemas are, as msgspec's `ref_template`."""
    answers = [Transcription, VerboseTranscription, TextDelta, TextDone]
    _, components = msgspec.json.schema_components(answers, ref_template=reference)
    schemas.update(components)
    for task in ("transcriptions", "translations"):
        route = paths[f"{_AUDIO}{task}"]["post"]
        wanted = _form(form, streamed=task == "transcriptions")
        bodies = {"multipart/form-data": {"schema": wanted}, "application/json": {"schema": _json(wanted)}}
        route["requestBody"] = {"required": True, "content": bodies}
        kinds = [{"$ref": reference.format(name=kind.__name__)} for kind in (Transcription, VerboseTranscription)]
        content: dict[str, Any] = {"application/json": {"schema": {"anyOf": kinds}}}
        content |= {media_type(name): {"schema": {"type": "string"}} for name in get_args(Format) if name in _TEXTS}
        if task == "transcriptions":
            said = "TextDelta for each segment, TextDone at the end, ErrorBody if it fails."
            data = {"type": "string", "contentMediaType": "application/json", "description": said}
            content["text/event-stream"] = {
                "schema": {"type": "object", "required": ["data"], "properties": {"data": data}}
            }
        route["responses"]["200"] = {"description": "The transcript in the asked format.", "content": content}


_TEXTS = FORMATS.keys() - {"json"}


def _json(form: dict[str, Any]) -> dict[str, Any]:
    """The same fields, with the recording as text."""
    audio = {
        "type": "object",
        "required": ["data"],
        "properties": {
            "data": {"type": "string", "contentEncoding": "base64", "description": "The recording; also a data URL."},
            "format": {"type": "string", "examples": ["wav"], "description": "It names the recording, no more."},
        },
    }
    fields = {name: field for name, field in form["properties"].items() if name != "file"}
    return {"type": "object", "required": ["input_audio"], "properties": {"input_audio": audio, **fields}}


def _form(classic: dict[str, Any], *, streamed: bool) -> dict[str, Any]:
    """OpenAI's fields and ours."""
    form = deepcopy(classic)
    fields = form["properties"]
    fields["model"]["examples"] = [*OPENAI_NAMES, *MODELS]
    fields["response_format"] = {"type": "string", "enum": list(get_args(Format)), "default": "json"}
    fields["timestamp_granularities[]"] = {
        "type": "array",
        "items": {"type": "string", "enum": list(GRANULARITIES)},
        "description": "What verbose_json has; default: segments.",
    }
    if streamed:
        fields["stream"] = {
            "type": "boolean",
            "default": False,
            "description": "Send the text as it is transcribed; applies to json and text only.",
        }
    else:
        del fields["task"]
    return form
