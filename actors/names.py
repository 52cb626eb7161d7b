"""What a recording is called: text for people, whoever gave it."""

import re
import unicodedata
from email.message import Message
from email.utils import collapse_rfc2231_value
from urllib.parse import unquote

from actors.guard import parse

#: Characters that turn the text around them, with which a name can pretend to be another.
_DIRECTIONS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}

_MEDIA_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+(;[ -~]*)?", re.ASCII)


def display_name(filename: str) -> str:
    """A client's file name as text for people: its last component without control and direction characters."""
    last = filename.replace("\\", "/").rsplit("/", 1)[-1]
    shown = "".join(character for character in last if not _is_hidden(character))
    return shown.strip()[:255] or "recording"


def url_name(url: str) -> str:
    """The last part of a url's path, else its host; never what may be secret of it: the query. Raises UrlNotAllowed."""
    target = parse(url)
    last = unquote(target.path.partition("?")[0].rstrip("/").rpartition("/")[2])
    return display_name(last or target.host)


def disposition_name(header: str) -> str:
    """The file name in a Content-Disposition (RFC 6266); empty where there is none."""
    message = Message()
    message["Content-Disposition"] = header
    given = [value for name, value in message.get_params([], "Content-Disposition") if name.lower() == "filename"]
    # `filename*`, which comes as a tuple, has the letters that `filename` cannot have.
    given.sort(key=lambda value: not isinstance(value, tuple))
    name = collapse_rfc2231_value(given[0]) if given else ""
    return display_name(name) if name.strip() else ""


def media_type(header: str) -> str | None:
    """A server's Content-Type where it is one: it becomes a header of the object."""
    given = header.strip()
    return given if len(given) <= 200 and _MEDIA_TYPE.fullmatch(given) else None


def _is_hidden(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs") or unicodedata.bidirectional(character) in _DIRECTIONS
