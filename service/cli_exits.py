"""How the command line ends: its exit codes, and which error leads to which."""

import enum

from service.client_errors import ClientError, RequestRefused, Unreachable


class Exit(enum.IntEnum):
    OK = 0
    #: A job, or what was asked of one.
    FAILED = 1
    USAGE = 2
    #: It cannot be reached, does not know the key, or has a problem of its own.
    SERVER = 3
    INTERRUPTED = 130


def exit_of(error: ClientError) -> Exit:
    if isinstance(error, Unreachable) or error.status in (401, 403, 429) or (error.status or 0) >= 500:
        return Exit.SERVER
    if isinstance(error, RequestRefused):
        if error.code == "invalid_parameter":
            return Exit.USAGE
        if error.code in ("unexpected_answer", "not_found", "method_not_allowed"):
            return Exit.SERVER  # Something else listens at this address.
    return Exit.FAILED
