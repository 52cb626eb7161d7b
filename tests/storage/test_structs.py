"""Structs are made by many threads at once: msgspec alone ends the process then, nine times in ten."""

import subprocess
import sys

import msgspec
import pytest

from storage.transcript import Segment, Transcript
from tests.conftest import ROOT

PROGRAM = """
import json, sys, threading
from storage.structs import convert, decode
from storage.transcript import Transcript

sys.setswitchinterval(1e-6)
together = threading.Barrier(8)
made = []

def make():
    together.wait()
    made.append(MAKE)

threads = [threading.Thread(target=make) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert [(one.language, one.segments[0].text) for one in made] == [("en", "Hello.")] * 8
"""


@pytest.mark.parametrize("make", ["decode(sys.argv[1], Transcript)", "convert(json.loads(sys.argv[1]), Transcript)"])
def test_threads_may_make_the_first_structs_of_a_kind_together(make: str) -> None:
    text = msgspec.json.encode(Transcript("Hello.", "en", 1.0, 1.0, 1.0, [Segment(0, 0.0, 1.0, "Hello.", 1.0)]))

    for _ in range(5):
        command = [sys.executable, "-c", PROGRAM.replace("MAKE", make), text.decode()]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=240)

        assert done.returncode == 0, done.stderr
