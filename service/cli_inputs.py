"""What the command line is given: recordings, folders of them, URLs, standard input; and where each result goes."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from urllib.parse import unquote, urlsplit

import msgspec
import typer

from service.client_submit import is_url, shown_name

STDIN = "-"

#: What is taken from a folder; a file that is named itself may be called as it likes.
_RECORDINGS = frozenset(
    f".{extension}"
    for line in (
        "3g2 3gp aac ac3 aif aiff amr asf avi caf flac flv m2ts m4a m4b m4v mka mkv mov mp2 mp3 mp4 mpeg mpg mts mxf",
        "oga ogg ogv opus wav webm wma wmv",
    )
    for extension in line.split()
)


class Input(msgspec.Struct, frozen=True, kw_only=True):
    #: For people.
    shown: str
    #: A path, a URL or STDIN.
    source: Path | str
    #: Its result's place below an output folder, with the recording's own name.
    place: PurePath


def find_inputs(arguments: Sequence[str]) -> list[Input]:
    """In the given order; a folder's in the order of their names, those below it included.

    Raises:
        typer.BadParameter: one is not there, or a folder has no recordings.
    """
    if arguments.count(STDIN) > 1:
        raise typer.BadParameter("standard input can be read once only")
    return [found for argument in arguments for found in _find(argument)]


def _find(argument: str) -> Iterator[Input]:
    if argument == STDIN:
        yield Input(shown="standard input", source=STDIN, place=PurePath("recording"))
        return
    if is_url(argument):
        address = urlsplit(argument)
        name = PurePath(unquote(address.path)).name or address.hostname or "recording"
        yield Input(shown=clean(name), source=argument, place=PurePath(name))
        return
    path = Path(argument)
    if not path.exists():
        raise typer.BadParameter(f"{clean(argument)} is not there")
    if not path.is_dir():
        yield Input(shown=clean(shown_name(path)), source=path, place=PurePath(path.name))
        return
    found = sorted(_recordings(path))
    if not found:
        raise typer.BadParameter(f"{clean(argument)} has no recordings")
    for recording in found:
        place = recording.relative_to(path)
        yield Input(shown=clean(os.fsencode(place).decode("utf-8", "replace")), source=recording, place=place)


def _recordings(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(parent, name)
            if not name.startswith(".") and path.suffix.lower() in _RECORDINGS and path.is_file():
                yield path


def find_outputs(inputs: Sequence[Input], output: str | None, extension: str) -> list[Path | None]:
    """Where each input's result goes; None: to standard output.

    Raises:
        typer.BadParameter: several results would go into one file, or one over its own recording, or into a folder
            that is not there.
    """
    if output is None:
        return [None for _ in inputs]
    target = Path(output)
    if not is_folder(output):
        if len(inputs) > 1:
            raise typer.BadParameter(f"{clean(output)} is one file and there are {len(inputs)} recordings")
        outputs = [find_place(target)]
    else:
        outputs = _below(target, inputs, extension)
    sources = {one.source.resolve() for one in inputs if isinstance(one.source, Path)}
    if taken := next((path for path in outputs if path.resolve() in sources), None):
        raise typer.BadParameter(f"{clean(str(taken))} is a recording: the result would take its place")
    return list(outputs)


def is_folder(output: str) -> bool:
    """It is one, or is meant to become one."""
    return output.endswith(os.sep) or Path(output).is_dir()


def find_place(path: Path) -> Path:
    """The path of a single file: a folder that is not there is a slip rather than a wish.

    Raises:
        typer.BadParameter: its folder is not there.
    """
    if not path.parent.is_dir():
        raise typer.BadParameter(f"the folder {clean(str(path.parent))} is not there")
    return path


def _below(folder: Path, inputs: Sequence[Input], extension: str) -> list[Path]:
    """`talk.srt`; where another recording has that already `talk.wav.srt`, `talk.wav-2.srt` and so on."""
    taken: set[Path] = set()
    outputs = []
    for one in inputs:
        names = [
            one.place.stem,
            one.place.name,
            *(f"{one.place.name}-{number}" for number in range(2, len(inputs) + 2)),
        ]
        paths = (folder / one.place.with_name(f"{name}.{extension}") for name in names)
        outputs.append(next(path for path in paths if path not in taken))
        taken.add(outputs[-1])
    return outputs


def clean(text: str) -> str:
    """Without what a terminal would take for a command; one line."""
    printable = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(character if character.isprintable() else " " for character in printable)
