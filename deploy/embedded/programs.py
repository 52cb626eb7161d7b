"""The four programs as supervisord's configuration: what starts first stops last, what dies is started again."""

import shlex
from pathlib import Path

from deploy.embedded.parts import Part
from deploy.embedded.with_parent import tied_to_parent


def supervisor_ini(parts: list[Part], stop_seconds: dict[str, int], logs: Path) -> str:
    """`parts` in the order of starting; `stop_seconds`: how long each may take to end before it is killed.

    It holds no secret: the programs inherit supervisord's environment.
    """
    sections = [
        _section(
            "supervisord",
            {"nodaemon": "true", "silent": "true", "logfile": logs / "supervisord.log"}
            | {"logfile_maxbytes": "1MB"}
            | {"pidfile": logs / "supervisord.pid", "childlogdir": logs},
        ),
        *(_program(part, priority, stop_seconds[part.name], logs) for priority, part in enumerate(parts, 1)),
    ]
    return "\n".join(sections)


def _program(part: Part, priority: int, stop_seconds: int, logs: Path) -> str:
    return _section(
        f"program:{part.name}",
        {
            "command": shlex.join(tied_to_parent("KILL", part.argv)),
            "directory": part.directory,
            "environment": ",".join(f'{name}="{value}"' for name, value in part.env.items()),
            "priority": priority,
            "autorestart": "true",
            "startsecs": 5,
            # Each try waits a second longer than the one before.
            "startretries": 1_000,
            "killasgroup": "true",
            "stopwaitsecs": stop_seconds,
            "redirect_stderr": "true",
            "stdout_logfile": logs / f"{part.name}.log",
            "stdout_logfile_maxbytes": "10MB",
            "stdout_logfile_backups": 3,
        },
    )


def _section(name: str, values: dict[str, object]) -> str:
    # supervisord expands %(...)s in every value.
    lines = [f"{key}={str(value).replace('%', '%%')}" for key, value in values.items()]
    return "\n".join([f"[{name}]", *lines, ""])
