"""Of a file with several audio tracks, the one that is asked for is heard, else the main one."""

import io

import numpy as np
import pytest

from actors.audio.decode import SAMPLE_RATE, DecodeOptions, decode_channels
from actors.errors import AudioUnreadable
from actors.languages import LANGUAGES, parse_language
from tests.actors.conftest import Convert
from tests.recordings import wav

#: The tone of each track, in hertz: what is heard says which one it is.
TONES = (300, 700, 1500)


def sine(hertz: float) -> str:
    return f"sine=frequency={hertz}:sample_rate=16000:duration=2"


@pytest.fixture
def tracks(convert: Convert) -> "Tracks":
    return Tracks(convert)


class Tracks:
    """Makes files with three audio tracks of a tone each."""

    def __init__(self, convert: Convert) -> None:
        self._convert = convert

    def made(self, ending: str, *options: str) -> bytes:
        """`options`: of ffmpeg, on top of three tracks without a name."""
        inputs = [word for hertz in TONES for word in ("-f", "lavfi", "-i", sine(hertz))]
        maps = [word for number in (1, 2, 3) for word in ("-map", f"{number}:a")]
        plain = [word for number in (0, 1, 2) for word in (f"-disposition:a:{number}", "0")]
        return self._convert(wav(np.zeros(1600)), ending, *inputs, *maps, *plain, *options)


def heard(recording: bytes, audio_track: str | None = None) -> int:
    """Which of the tones is heard, in hertz."""
    options = DecodeOptions(audio_track=audio_track)
    samples = np.concatenate(list(decode_channels(io.BytesIO(recording), options)), axis=1)[0]
    spectrum = np.abs(np.fft.rfft(samples[: 2 * SAMPLE_RATE]))
    return min(TONES, key=lambda hertz: abs(hertz - np.argmax(spectrum) / 2))


def named(*names: tuple[str, str]) -> tuple[str, ...]:
    """ffmpeg's options for the languages and titles of the tracks."""
    given = []
    for number, (language, title) in enumerate(names):
        given += [f"-metadata:s:a:{number}", f"language={language}", f"-metadata:s:a:{number}", f"title={title}"]
    return tuple(given)


@pytest.mark.parametrize("ending", ["mkv", "mp4", "mov", "ts"])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_track_is_chosen_by_its_number(ending: str, number: int, tracks: Tracks) -> None:
    assert heard(tracks.made(ending), str(number)) == TONES[number - 1]


@pytest.mark.parametrize("ending", ["mkv", "mp4", "ts"])
@pytest.mark.parametrize("wanted", ["de", "deu", "ger", "German", "de-AT", "DE_de"])
def test_a_track_is_chosen_by_its_language(ending: str, wanted: str, tracks: Tracks) -> None:
    recording = tracks.made(ending, *named(("eng", ""), ("ger", ""), ("fra", "")))

    assert heard(recording, wanted) == TONES[1]


def test_a_language_means_its_main_track_not_the_commentary(tracks: Tracks) -> None:
    recording = tracks.made("mkv", *named(("fra", ""), ("eng", "Director's commentary"), ("eng", "")))

    assert heard(recording, "en") == TONES[2]


def test_a_track_whose_language_whisper_does_not_know_is_chosen_by_its_own_code(tracks: Tracks) -> None:
    assert heard(tracks.made("mkv", *named(("eng", ""), ("gsw", ""))), "gsw") == TONES[1]


@pytest.mark.parametrize("flag", ["comment", "visual_impaired", "hearing_impaired"])
@pytest.mark.parametrize("ending", ["mkv", "mp4"])
def test_a_track_beside_the_main_one_loses_even_as_the_default(ending: str, flag: str, tracks: Tracks) -> None:
    # FFmpeg writes no flag of a commentary into MP4.
    flag = "descriptions" if (ending, flag) == ("mp4", "comment") else flag
    recording = tracks.made(ending, "-disposition:a:0", f"default+{flag}")

    assert heard(recording) in TONES[1:]
    assert heard(recording, "1") == TONES[0]


@pytest.mark.parametrize("title", ["Commentary by the director", "Audio Description", "Kommentar", "Audiodeskription"])
def test_a_title_says_that_a_track_is_beside_the_main_one(title: str, tracks: Tracks) -> None:
    recording = tracks.made("mkv", "-disposition:a:0", "default", *named(("eng", title), ("eng", "Stereo")))

    assert heard(recording) in TONES[1:]


def test_of_main_tracks_the_default_is_heard(tracks: Tracks) -> None:
    flags = ("-disposition:a:0", "default+comment", "-disposition:a:2", "default")

    assert heard(tracks.made("mkv", *flags)) == TONES[2]
    assert heard(tracks.made("mkv", "-disposition:a:1", "default")) == TONES[1]


def test_a_file_that_holds_a_commentary_alone_is_heard(convert: Convert) -> None:
    recording = convert(
        wav(np.zeros(1600)), "mkv", "-f", "lavfi", "-i", sine(TONES[0]), "-map", "1", "-disposition:a:0", "comment"
    )

    assert heard(recording) == TONES[0]


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ("4", "the recording has no audio track 4: "),
        ("it", 'the recording has no audio track in "it": '),
        ("\x1b[31m<b>", 'the recording has no audio track in " [31m<b>": '),
    ],
)
def test_a_track_that_is_not_there_is_refused_with_those_that_are(wanted: str, reason: str, tracks: Tracks) -> None:
    recording = tracks.made("mkv", *named(("eng", "Main"), ("ger", "A\nB\x1b[31m"), ("und", "")))

    with pytest.raises(AudioUnreadable) as caught:
        heard(recording, wanted)

    assert str(caught.value) == reason + 'it has 1 (eng, "Main"), 2 (ger, "A B [31m"), 3'


def test_a_recording_with_one_track_has_a_first_one() -> None:
    assert len(list(decode_channels(io.BytesIO(wav(np.zeros(1600))), DecodeOptions(audio_track="1")))) == 1


def test_every_language_of_whisper_is_known_by_its_name() -> None:
    assert {code: parse_language(name) for code, name in LANGUAGES.items()} == {code: code for code in LANGUAGES}
