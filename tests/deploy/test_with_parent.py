"""A program that ends with whoever started it, where that is the first process of a container too."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT

FIRST = ["unshare", "--pid", "--fork"]
STARTS_A_PROGRAM = """
import os, subprocess
from deploy.embedded.with_parent import tied_to_parent
print(os.getpid(), flush=True)
subprocess.run(tied_to_parent("TERM", ["/bin/echo", "began"]))
"""


def test_a_program_of_the_first_process_begins() -> None:
    if subprocess.run([*FIRST, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not make a first process")

    done = subprocess.run(
        [*FIRST, sys.executable, "-c", STARTS_A_PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert done.stdout == "1\nbegan\n"
