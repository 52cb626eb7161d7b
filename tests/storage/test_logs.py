"""Log lines: whatever a value holds, it stays on its line and does nothing to the terminal that shows it."""

import subprocess
import sys

import pytest

from storage.logs import escape
from tests.conftest import ROOT

PROGRAM = """
import logging, sys, structlog
from storage import logs
logs.configure()
text = sys.stdin.buffer.read().decode("utf-8", "surrogatepass")
structlog.get_logger().info("job accepted", filename=text, **{"other": text})
try:
    raise ValueError(text)
except ValueError:
    structlog.get_logger().exception("job broke")
    logging.getLogger("library").exception("broke with %s", text)
"""


@pytest.mark.parametrize(
    "text",
    [
        "\x1b[2J\x1b]0;owned\x07", "a\0b", "a\nlevel=error event=forged", "a\r\nb", "\x85\u2028\u2029", "\x9b31m",
        "\u202etxt.exe", "\u2066\u2069\u200f", "\ufeff\u200b", "\udcff", "\U000e0041", "\x7f\x08",
    ],
)  # fmt: skip
def test_no_value_leaves_its_line_or_moves_the_cursor(text: str) -> None:
    logged = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, input=text.encode("utf-8", "surrogatepass"), capture_output=True,
        check=True,
    ).stderr.decode()  # fmt: skip

    lines = logged.split("\n")
    assert len(lines) == 4
    assert lines[3] == ""
    assert all(line.isprintable() and line.startswith("timestamp=") for line in lines[:3])


def test_ordinary_text_is_logged_as_it_is() -> None:
    assert escape('naïve café 日本語.mp3 \\ "quoted"') == 'naïve café 日本語.mp3 \\ "quoted"'
