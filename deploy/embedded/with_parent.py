"""`with_parent.py KILL 42 command ...` becomes the command, which gets SIGKILL when its parent dies, even by kill -9.

42 is the process that wrote the command line. Run by path and with `python -IS`, so that it costs next to nothing.
Linux only; elsewhere it just becomes the command.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def tied_to_parent(signal_name: str, argv: list[str]) -> list[str]:
    """The command line of `argv` tied to whoever starts it; `argv` begins with a path."""
    return [sys.executable, "-IS", __file__, signal_name, str(os.getpid()), *argv]


def main() -> None:
    wanted, writer, *command = sys.argv[1:]
    if sys.platform == "linux":
        # prctl(2). The setting outlives exec.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.Signals[f"SIG{wanted}"])
        # Process 1 takes orphans in. In a container it may be the writer: then nothing outlives it anyway.
        if os.getppid() == 1 != int(writer):
            sys.exit("the parent died before this began")
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
