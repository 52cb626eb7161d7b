"""The command line: `bucketscribe transcribe talk.mp4 --format srt -o talk.srt`, and what can be done with jobs.

Results go to standard output, everything else to standard error. Exit codes are in service/cli_exits.py.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import typer
import typer.core
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from service import __version__
from service.cli_display import open_display
from service.cli_exits import Exit, exit_of
from service.cli_inputs import clean, find_inputs, find_outputs, find_place, is_folder
from service.cli_transcribe import Run, Wish
from service.client import Client, format_of, write_whole
from service.client_errors import ClientError
from service.client_types import EXTENSIONS, Format, Job, Option
from storage.job import JobStatus, Options


class _Commands(typer.core.TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            # Of the library that checks a choice; it says nothing to people.
            error.message = error.message.removeprefix("Value error, ")
            raise


app = typer.Typer(
    name="bucketscribe",
    cls=_Commands,
    help="Transcribe recordings on a Bucketscribe server.",
    no_args_is_help=True,
    # A traceback with the values of variables would show keys.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_OUTPUT, _WORK, _SUBTITLES, _JOB, _SERVER = "Output", "Recognition", "Subtitles", "Job", "Server"

Url = Annotated[
    str, typer.Option("--url", envvar="BUCKETSCRIBE_URL", help="The server's address.", rich_help_panel=_SERVER)
]
Key = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        envvar="BUCKETSCRIBE_API_KEY",
        help="Better in the environment: other users see a command's arguments.",
        show_default=False,
        rich_help_panel=_SERVER,
    ),
]
LOCAL = "http://localhost:8000"

JobIds = Annotated[list[str], typer.Argument(metavar="JOB...", help="Jobs' ids.")]
FormatOption = Annotated[
    Format | None,
    typer.Option(
        "--format",
        "-f",
        help="Default: what the output's name ends with; text without an ending.",
        show_default=False,
        rich_help_panel=_OUTPUT,
    ),
]
Output = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="PATH",
        help="A file, or a folder; default: standard output.",
        rich_help_panel=_OUTPUT,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="As the API says it.")]

LineWidth = Annotated[
    int | None, typer.Option(help="Columns in a line; 0: a line a segment.", rich_help_panel=_SUBTITLES)
]
LineCount = Annotated[int | None, typer.Option(help="Lines in a cue; 0: any number.", rich_help_panel=_SUBTITLES)]
ReadingSpeed = Annotated[float | None, typer.Option(help="Characters a second; 0: any.", rich_help_panel=_SUBTITLES)]
LeastSeconds = Annotated[
    float | None, typer.Option(help="How long a cue stays at least; 0: any.", rich_help_panel=_SUBTITLES)
]
MostSeconds = Annotated[
    float | None, typer.Option(help="How long a cue stays at most; 0: any.", rich_help_panel=_SUBTITLES)
]
GapSeconds = Annotated[
    float | None, typer.Option(help="Between two cues at least; 0: none.", rich_help_panel=_SUBTITLES)
]


def _work(help: str, *names: str, panel: str = _WORK) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(*names, help=help, rich_help_panel=panel, show_default=False)
    return option


@app.command()
def transcribe(
    context: typer.Context,
    recordings: Annotated[
        list[str],
        typer.Argument(metavar="RECORDING...", help="Files, folders, URLs; - is standard input.", show_default=False),
    ],
    output: Output = None,
    format: FormatOption = None,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Not what has its result.", rich_help_panel=_OUTPUT)
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.", rich_help_panel=_OUTPUT)] = False,
    model: Annotated[str | None, _work("As base or large-v3; default: the server's.", "--model", "-m")] = None,
    language: Annotated[str | None, _work("As en or en-US; default: detect.", "--language", "-l")] = None,
    task: Annotated[Literal["transcribe", "translate"] | None, _work("translate: into English.")] = None,
    timestamp_granularity: Annotated[
        Literal["segment", "word"] | None, _work("word: JSON has the times of words, too.")
    ] = None,
    engine: Annotated[Literal["windowed", "sequential"] | None, _work("Fast, or faster-whisper as it is.")] = None,
    temperature: Annotated[float | None, _work("Where decoding starts, 0 to 1.")] = None,
    prompt: Annotated[str | None, _work("Text that precedes the recording, for style and spelling.")] = None,
    hotwords: Annotated[str | None, _work("Words to listen for.")] = None,
    vad_filter: Annotated[
        bool | None, _work("Leave stretches without speech out.", "--vad-filter/--no-vad-filter")
    ] = None,
    channels: Annotated[
        Literal["mixed", "separate"] | None, _work("separate: each on its own, as the two sides of a call.")
    ] = None,
    audio_track: Annotated[str | None, _work("Its number, or a language; default: the file's main one.")] = None,
    segment_details: Annotated[
        bool | None, _work("JSON has what the decoder knew of each segment.", "--segment-details")
    ] = None,
    max_line_width: LineWidth = None,
    max_line_count: LineCount = None,
    max_characters_per_second: ReadingSpeed = None,
    min_cue_seconds: LeastSeconds = None,
    max_cue_seconds: MostSeconds = None,
    min_gap_seconds: GapSeconds = None,
    priority: Annotated[
        Literal["low", "normal", "high"] | None, _work("Which jobs are taken first.", panel=_JOB)
    ] = None,
    webhook_url: Annotated[str | None, _work("Where the server posts the job when it has ended.", panel=_JOB)] = None,
    filename: Annotated[str | None, _work("What a single recording is called on the server.", panel=_JOB)] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Without: print the jobs' ids and go.", rich_help_panel=_JOB)
    ] = True,
    parallel: Annotated[
        int, typer.Option(min=1, max=32, help="Parts of an upload on their way at once.", rich_help_panel=_JOB)
    ] = 4,
    url: Url = LOCAL,
    api_key: Key = None,
) -> None:
    """Send recordings straight into the server's bucket and bring back what is said.

    An interrupted upload goes on with the next run of the same command.

    Ctrl-C while the server works asks whether to cancel the job, too; without a terminal it is cancelled.
    """
    inputs = find_inputs(recordings)
    if filename is not None and len(inputs) > 1:
        raise typer.BadParameter("--filename is for a single recording")
    format = format or _format_of(output)
    outputs = find_outputs(inputs, output, EXTENSIONS[format])
    if len(inputs) > 1 and output is None and format != "text" and wait:
        raise typer.BadParameter(f"{len(inputs)} recordings as {format} need a folder: --output FOLDER/")
    wanted = [
        pair for pair in zip(inputs, outputs, strict=True) if not (skip_existing and pair[1] and pair[1].exists())
    ]
    wish = Wish(format=format, options=_chosen(context), filename=filename and clean(filename), wait=wait)
    display = open_display(quiet)
    with _connected(url, api_key, parallel) as client:
        try:
            code = Run(client, display, wish).run([one for one, _ in wanted], [path for _, path in wanted])
        finally:
            display.close()
    raise typer.Exit(code)


@app.command()
def jobs(
    status: Annotated[JobStatus | None, typer.Option(help="Only these.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="So many of them.")] = 20,
    as_json: AsJson = False,
    url: Url = LOCAL,
    api_key: Key = None,
) -> None:
    """List jobs, newest first. Without a terminal: id, status, percent, time and name with tabs between."""
    with _connected(url, api_key) as client:
        found = list(client.jobs(status and status.value, limit=limit))
    if as_json:
        _print_json(found)
        return
    rows = [
        (job.job_id, job.status.value, f"{job.progress:.0f}", f"{job.created_at:%Y-%m-%d %H:%M:%SZ}", job)
        for job in found
    ]
    if not sys.stdout.isatty():
        for *cells, job in rows:
            typer.echo("\t".join((*cells, clean(job.source.filename))))
        return
    table = Table("job", "status", "%", "made", "recording", box=None, pad_edge=False)
    for *cells, job in rows:
        table.add_row(*cells, clean(job.source.filename))
    Console(highlight=False, markup=False).print(table)


@app.command()
def status(
    job_ids: JobIds,
    wait: Annotated[bool, typer.Option("--wait", help="Until they are final; 1 if one is not completed then.")] = False,
    as_json: AsJson = False,
    url: Url = LOCAL,
    api_key: Key = None,
) -> None:
    """Say how far jobs are."""
    found = []
    with _connected(url, api_key) as client:
        for job_id in job_ids:
            for _ in client.events(job_id) if wait else ():
                pass
            found.append(client.job(job_id, include="files"))
    if as_json:
        _print_json(found if len(job_ids) > 1 else found[0])
    else:
        typer.echo("\n\n".join("\n".join(_facts(job)) for job in found))
    if wait and any(job.status is not JobStatus.COMPLETED for job in found):
        raise typer.Exit(Exit.FAILED)


@app.command()
def cancel(job_ids: JobIds, url: Url = LOCAL, api_key: Key = None) -> None:
    """Stop jobs."""
    with _connected(url, api_key) as client:
        for job_id in job_ids:
            client.cancel(job_id)
            typer.echo(f"{job_id} cancelled", err=True)


@app.command()
def delete(job_ids: JobIds, url: Url = LOCAL, api_key: Key = None) -> None:
    """Remove jobs with their recordings and results."""
    with _connected(url, api_key) as client:
        for job_id in job_ids:
            client.delete(job_id)
            typer.echo(f"{job_id} deleted", err=True)


@app.command()
def download(
    job_id: Annotated[str, typer.Argument(metavar="JOB", help="A completed job's id.")],
    output: Output = None,
    format: FormatOption = None,
    max_line_width: LineWidth = None,
    max_line_count: LineCount = None,
    max_characters_per_second: ReadingSpeed = None,
    min_cue_seconds: LeastSeconds = None,
    max_cue_seconds: MostSeconds = None,
    min_gap_seconds: GapSeconds = None,
    url: Url = LOCAL,
    api_key: Key = None,
    *,
    context: typer.Context,
) -> None:
    """Bring a job's transcript."""
    format = format or _format_of(output)
    target = None if output is None else Path(output)
    if target is not None and not is_folder(str(output)):
        find_place(target)
    with _connected(url, api_key) as client:
        content = client.transcript(job_id, format, **_chosen(context))
        if target is None:
            sys.stdout.buffer.write(content)
            return
        if is_folder(str(output)):
            target.mkdir(parents=True, exist_ok=True)
            target /= f"{Path(client.job(job_id, include='').source.filename).stem}.{EXTENSIONS[format]}"
        write_whole(target, content)
        typer.echo(clean(str(target)), err=True)


@app.callback(invoke_without_command=True)
def main(version: Annotated[bool, typer.Option("--version", help="Say the version.")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@contextmanager
def _connected(url: str, api_key: str | None, parallel: int = 4) -> Iterator[Client]:
    """A client whose errors end the command with a sentence and an exit code.

    Raises:
        typer.BadParameter: the address is none.
    """
    try:
        with _client(url, api_key, parallel) as client:
            yield client
    except ClientError as error:
        typer.echo(f"bucketscribe: {clean(error.detail)} ({error.code})", err=True)
        raise typer.Exit(exit_of(error)) from error
    except BrokenPipeError:
        raise
    except OSError as error:
        typer.echo(f"bucketscribe: {clean(str(error))}", err=True)
        raise typer.Exit(Exit.FAILED) from error


def _client(url: str, api_key: str | None, parallel: int) -> Client:
    try:
        return Client(url, api_key, parallel=parallel)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--url") from error


def _chosen(context: typer.Context) -> dict[str, Option]:
    """The job's options among the command's, as far as they were given."""
    return {
        name: value for name, value in context.params.items() if name in Options.__struct_fields__ and value is not None
    }


def _format_of(output: str | None) -> Format:
    if output is None or is_folder(output):
        return "text"
    try:
        return format_of(Path(output))
    except ValueError as error:
        raise typer.BadParameter(f"{error}: --format", param_hint="--output") from error


def _facts(job: Job) -> Iterator[str]:
    source, options = job.source, job.options
    yield f"job: {job.job_id}"
    yield f"status: {job.status}, {job.progress:.0f} %"
    length = "" if source.duration is None else f", {source.duration:.1f} s"
    yield f"recording: {clean(source.filename)}, {decimal(source.size)}{length}"
    yield f"made: {job.created_at:%Y-%m-%d %H:%M:%SZ}"
    if job.completed_at is not None:
        yield f"ended: {job.completed_at:%Y-%m-%d %H:%M:%SZ}"
    yield f"model: {options.get('model')}, language: {options.get('language') or 'detected'}"
    if job.error is not None:
        yield f"error: {clean(job.error)} ({job.error_code})"
    yield from (f"warning: {clean(warning)}" for warning in job.warnings)
    if job.files:
        yield f"files: {', '.join(job.files)}"


def _print_json(shown: Job | list[Job]) -> None:
    typer.echo(msgspec.json.format(msgspec.json.encode(shown), indent=2))


if __name__ == "__main__":
    app(prog_name="bucketscribe")
