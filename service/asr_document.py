"""What the OpenAPI document says of /asr and /detect-language: their form, and the answer that is always plain text."""

from typing import Any

PATHS = ("/asr", "/detect-language")

_FORM = {
    "type": "object",
    "required": ["audio_file"],
    "properties": {
        "audio_file": {
            "type": "string",
            "format": "binary",
            "description": "The recording: audio, or video with sound; with `encode=false` raw samples.",
        }
    },
}


def describe(paths: dict[str, Any]) -> None:
    """Complete the routes."""
    for path in PATHS:
        route = paths[path]["post"]
        route["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}
    paths["/asr"]["post"]["responses"]["200"] = {
        "description": "The transcript as `output` says, to be saved under the name in Content-Disposition.",
        "content": {"text/plain; charset=utf-8": {"schema": {"type": "string"}}},
    }
