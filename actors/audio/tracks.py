"""Which of a file's audio streams is transcribed: the one that was asked for, else the main one."""

import re

from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Discard, Disposition

from actors.audio.limits import check_streams
from actors.errors import AudioUnreadable
from actors.languages import LanguageUnknown, parse_language

#: What is said about a film, or for those who cannot see or hear it, is not its sound.
_BESIDE = (
    Disposition.comment
    | Disposition.hearing_impaired
    | Disposition.visual_impaired
    | Disposition.descriptions
    | Disposition.karaoke
    | Disposition.clean_effects
)
_BESIDE_TITLE = re.compile(
    r"\bcommentar(y|ies)\b|\bcomments?\b|kommentar|\bcommentaires?\b|\bcomentarios?\b|\bcommento\b"
    r"|\baudio ?descri|\bdescriptive\b|\bdescribed\b|audiodeskription|hörfassung",
    re.IGNORECASE,
)

#: What software writes where nobody gave a title.
_NO_TITLES = ("SoundHandler", "Sound Media Handler", "Core Media Audio", "GPAC ISO Audio Handler")

#: Tracks that a message lists, and letters of a title in it.
_MOST_LISTED, _MOST_LETTERS = 20, 40


def choose_track(container: InputContainer, wanted: str | None) -> AudioStream:
    """The stream to decode, with all others set to be discarded, so that their bytes need not be read.

    `wanted`: a number, counted from 1 among the audio streams, or a language; None: the main one.

    Raises:
        AudioUnreadable: there is no audio stream, or not this one; the message lists those that there are.
    """
    check_streams(container)
    tracks = [stream for stream in container.streams if isinstance(stream, AudioStream)]
    if not tracks:
        kinds = sorted({stream.type for stream in container.streams})
        holds = f"it holds {' and '.join(kinds)}" if kinds else "it holds no stream at all"
        raise AudioUnreadable(f"the file has no audio stream: {holds}")
    chosen = _main(container, tracks) if wanted is None else _wanted(tracks, wanted)
    for other in container.streams:
        if other is not chosen:
            other.discard = Discard.all
    return chosen


def _main(container: InputContainer, tracks: list[AudioStream]) -> AudioStream:
    """FFmpeg's choice, unless that lies beside the main sound and another does not."""
    best = container.streams.best("audio")
    chosen = next((track for track in tracks if track is best), tracks[0])
    if not _is_beside(chosen):
        return chosen
    others = [track for track in tracks if not _is_beside(track)]
    return max(others, key=_rank, default=chosen)


def _rank(track: AudioStream) -> tuple[bool, bool]:
    return bool(track.disposition & Disposition.default), bool(track.disposition & Disposition.original)


def _is_beside(track: AudioStream) -> bool:
    return bool(track.disposition & _BESIDE) or bool(_BESIDE_TITLE.search(_title(track)))


def _wanted(tracks: list[AudioStream], wanted: str) -> AudioStream:
    if wanted.isdecimal():
        if 1 <= int(wanted) <= len(tracks):
            return tracks[int(wanted) - 1]
        raise AudioUnreadable(f"the recording has no audio track {int(wanted)}: {_listed(tracks)}")
    code = _code(wanted)
    spoken = [track for track in tracks if _code(_language(track)) == code]
    if not spoken:
        raise AudioUnreadable(f"the recording has no audio track in {_quoted(wanted)}: {_listed(tracks)}")
    return next((track for track in spoken if not _is_beside(track)), spoken[0])


def _code(language: str) -> str:
    """Whisper's code for a language in any spelling; its text in small letters where it has none."""
    try:
        return parse_language(language) or language.strip().lower()
    except LanguageUnknown:
        return language.strip().lower()


def _listed(tracks: list[AudioStream]) -> str:
    listed = []
    for number, track in enumerate(tracks[:_MOST_LISTED], 1):
        facts = [_language(track), _quoted(_title(track)) if _title(track) else ""]
        named = ", ".join(fact for fact in facts if fact)
        listed.append(f"{number} ({named})" if named else str(number))
    more = f" and {len(tracks) - _MOST_LISTED} more" if len(tracks) > _MOST_LISTED else ""
    return f"it has {', '.join(listed)}{more}"


def _quoted(text: str) -> str:
    return '"' + "".join(letter if letter.isprintable() else " " for letter in text[:_MOST_LETTERS]) + '"'


def _language(track: AudioStream) -> str:
    """As the file gives it, mostly three letters of ISO 639-2; empty where it does not say."""
    language = track.metadata.get("language", "")[:_MOST_LETTERS]
    return language if language.isascii() and language.isprintable() and language != "und" else ""


def _title(track: AudioStream) -> str:
    """Matroska has titles; MP4's are names of their handlers, and nearly always say nothing."""
    title = track.metadata.get("title") or track.metadata.get("name") or track.metadata.get("handler_name", "")
    return "" if title in _NO_TITLES else title
