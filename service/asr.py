"""`/asr` and `/detect-language`, as whisper-asr-webservice answers them: https://github.com/ahmetoner/whisper-asr-webservice

Media servers know these two and switch by their address: Bazarr sends raw samples (`encode=false`) and takes whatever
is answered for a subtitle file. So there is no answer that says "later": it is waited for as long as the client does.
What is asked for stands in the address, and every output is `text/plain`.
"""

import struct
from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
from litestar import Request, Response, get, post
from litestar.concurrency import sync_to_thread
from litestar.datastructures import State
from litestar.params import Parameter

from actors.languages import LANGUAGES
from service import __version__
from service.backend import Backend
from service.errors import ApiError, invalid, problems
from service.options import read_form
from service.transcribe import UPLOAD_ERRORS, WAIT_ERRORS, completed, receive, stored, wait_final
from service.uploads import FormShape
from storage.errors import quoted
from storage.job import Job
from storage.structs import decode
from storage.transcript import NO_DETAILS, Segment, Transcript

#: Their outputs → names of actors.formats.FORMATS.
_FORMATS = {"txt": "text", "vtt": "vtt", "srt": "srt", "tsv": "tsv", "json": "json"}
_TASKS = ("transcribe", "translate")

#: Raw samples are 16 kHz mono of 16 bits. Their number is not known when the first of them is stored, and decoders read
#: a WAV file that names the largest one to its end.
_SAMPLE_RATE, _SAMPLE_BYTES, _UNKNOWN = 16000, 2, 0xFFFFFFFF
_WAV_HEADER = struct.pack(
    "<4sI4s4sIHHIIHH4sI",
    *(b"RIFF", _UNKNOWN, b"WAVE", b"fmt ", 16, 1, 1, _SAMPLE_RATE, _SAMPLE_RATE * _SAMPLE_BYTES, _SAMPLE_BYTES, 16),
    *(b"data", _UNKNOWN),
)
#: What is listened to when the language is asked for.
_MINUTE_BYTES = 60 * _SAMPLE_RATE * _SAMPLE_BYTES

#: Longer than any client waits.
_DAY_SECONDS = 86_400.0

Track = Annotated[
    str,
    Parameter(
        max_length=64, description="Which audio track: a number, counted from 1, or a language; empty: the main one."
    ),
]

_YES, _NO = frozenset({"true", "1", "yes", "on"}), frozenset({"false", "0", "no", "off"})


def _flag(default: bool, description: str) -> Any:
    """A parameter that is text, as an empty one is its default."""
    schema = {"type": "boolean", "default": default}
    return Parameter(description=description, schema_extra=schema)


Encode = Annotated[str, _flag(True, "false: the file is raw 16-bit little-endian mono samples at 16 kHz.")]


class Word(msgspec.Struct, frozen=True):
    start: float
    end: float
    word: str
    probability: float


class AsrSegment(msgspec.Struct, frozen=True):
    """faster-whisper's."""

    #: Counts from 1.
    id: int
    seek: int
    start: float
    end: float
    text: str
    tokens: list[int]
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    words: list[Word] | None
    temperature: float


class AsrTranscript(msgspec.Struct, frozen=True):
    """`output=json`."""

    language: str
    segments: list[AsrSegment]
    text: str


class DetectedLanguage(msgspec.Struct, frozen=True, kw_only=True):
    #: Whisper's name of it, in small letters.
    detected_language: str
    language_code: str
    #: Probability, 0.0 to 1.0.
    confidence: float


class Status(msgspec.Struct, frozen=True, kw_only=True):
    version: str


@get("/status", summary="The version", tags=["The /asr web service"], sync_to_thread=False)
def status() -> Status:
    """What Bazarr's test button asks for. As /health it needs no key."""
    return Status(version=f"Bucketscribe {__version__}")


@post(
    "/asr",
    status_code=200,
    summary="Transcribe and wait, as whisper-asr-webservice does",
    tags=["The /asr web service"],
    responses=problems(*UPLOAD_ERRORS, *WAIT_ERRORS, "audio_too_long", "still_running"),
    request_max_body_size=None,
)
async def transcribe(
    request: Request[Any, Any, State],
    backend: Backend,
    output: Annotated[
        str, Parameter(description="What is answered, always as text/plain.", schema_extra={"enum": list(_FORMATS)})
    ] = "txt",
    task: Annotated[
        str, Parameter(description="translate: into English.", schema_extra={"enum": list(_TASKS)})
    ] = "transcribe",
    language: Annotated[str, Parameter(description="A code, a tag as en-US, or an English name; empty: detect.")] = "",
    initial_prompt: Annotated[
        str, Parameter(description="Text that precedes the recording, to set style and spelling.")
    ] = "",
    word_timestamps: Annotated[str, _flag(False, "The JSON has the times of words, too.")] = "",
    vad_filter: Annotated[str, _flag(True, "Leave stretches without speech out.")] = "",
    encode: Encode = "",
    audio_track: Track = "",
) -> Response[bytes]:
    """The form field is `audio_file`. When the client goes away its job is cancelled. Other parameters are ignored."""
    output = _chosen("output", {"text": "txt"}.get(output.lower(), output.lower()) or "txt", list(_FORMATS))
    asked = {
        "task": _chosen("task", task.lower() or "transcribe", _TASKS),
        "language": language,
        "prompt": initial_prompt,
        "vad_filter": "true" if _is_set("vad_filter", vad_filter, default=True) else "false",
        "timestamp_granularity": "word" if _is_set("word_timestamps", word_timestamps, default=False) else "segment",
        "response_format": _FORMATS[output],
        "audio_track": audio_track,
    }
    job = await _done(request, backend, asked, _shape(encode), segment_details=output == "json")
    content = await sync_to_thread(_answer, job.job_id, output, backend)
    return Response(
        content,
        media_type="text/plain",
        headers={
            "Asr-Engine": "faster_whisper",
            "Content-Disposition": f'attachment; filename="{quote(job.source.filename)}.{output}"',
            "X-Job-Id": job.job_id,
        },
    )


@post(
    "/detect-language",
    status_code=200,
    summary="Which language is spoken",
    tags=["The /asr web service"],
    responses=problems(*UPLOAD_ERRORS, *WAIT_ERRORS, "still_running"),
    request_max_body_size=None,
)
async def detect_language(
    request: Request[Any, Any, State], backend: Backend, encode: Encode = "", audio_track: Track = ""
) -> Response[DetectedLanguage]:
    """In the first minute of the form's `audio_file`. It is a job like any other, whose transcript has no text."""
    job = await _done(
        request, backend, {"audio_track": audio_track}, _shape(encode, _MINUTE_BYTES), task="detect_language"
    )
    transcript = decode(await sync_to_thread(stored, job.job_id, "json", backend), Transcript)
    code = transcript.language
    answer = DetectedLanguage(
        detected_language=LANGUAGES[code].lower(), language_code=code, confidence=transcript.language_probability
    )
    return Response(answer, headers={"X-Job-Id": job.job_id})


def _chosen(field: str, given: str, known: Sequence[str]) -> str:
    if given not in known:
        raise invalid(field, f"{quoted(given)} is not one of them", known)
    return given


def _is_set(field: str, given: str, *, default: bool) -> bool:
    asked = given.strip().lower()
    if asked == "":
        return default
    if asked not in _YES | _NO:
        raise invalid(field, f"{quoted(given)} is neither", ["true", "false"])
    return asked in _YES


def _shape(encode: str, kept_bytes: int | None = None) -> FormShape:
    """Of raw samples no more need be stored than is listened to; what other files hold is found by decoding them."""
    if _is_set("encode", encode, default=True):
        return FormShape(file_field="audio_file")
    return FormShape(file_field="audio_file", header=_WAV_HEADER, kept_bytes=kept_bytes)


async def _done(
    request: Request[Any, Any, State], backend: Backend, asked: dict[str, str], shape: FormShape, **fixed: Any
) -> Job:
    """The form's job, once it is completed.

    Raises:
        ApiError: with its error; client_disconnected; still_running.
    """
    options = read_form(asked, backend.model_names)
    job, _ = await receive(request, backend, lambda _: options, shape, **fixed)
    if not await wait_final(request, backend, job.job_id, _DAY_SECONDS):
        raise ApiError("still_running", f"the job goes on, see /api/v1/status/{job.job_id}", job_id=job.job_id)
    return await sync_to_thread(completed, job.job_id, backend)


def _answer(job_id: str, output: str, backend: Backend) -> bytes:
    content = stored(job_id, _FORMATS[output], backend)
    if output != "json":
        return content
    transcript = decode(content, Transcript)
    segments = [_segment(segment) for segment in transcript.segments]
    text = "".join(segment.text for segment in transcript.segments)
    return msgspec.json.encode(AsrTranscript(transcript.language, segments, text))


def _segment(segment: Segment) -> AsrSegment:
    known = segment.details or NO_DETAILS
    words = segment.words
    return AsrSegment(
        id=segment.id + 1,
        seek=known.seek,
        start=segment.start,
        end=segment.end,
        text=segment.text,
        tokens=known.tokens,
        avg_logprob=known.avg_logprob,
        compression_ratio=known.compression_ratio,
        no_speech_prob=known.no_speech_prob,
        words=None if words is None else [Word(word.start, word.end, word.word, word.confidence) for word in words],
        temperature=known.temperature,
    )
