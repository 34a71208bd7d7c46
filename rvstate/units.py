"""Units of systemd and property lists of launchd that run a command once a day; text out only."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence


def service(title: str, words: Sequence[str], variables: Mapping[str, str]) -> str:
    """A oneshot service (systemd.service(5)).

    Args:
        title: What it is, for people.
        words: The command, its program an absolute path.
        variables: Its environment, over the user manager's own.
    """
    lines = [f"Environment={_quoted(f'{k}={v}')}" for k, v in sorted(variables.items())]
    # a dollar means a variable in a command, not in Environment=
    command = " ".join(_quoted(word.replace("$", "$$")) for word in words)
    return "\n".join(
        (
            "[Unit]",
            f"Description={_plain(title)}",
            "",
            "[Service]",
            "Type=oneshot",
            *lines,
            f"ExecStart={command}",
            "Nice=19",
            # no connection, which is kept and told: no failure of the unit
            "SuccessExitStatus=75",
            "",
        )
    )


def timer(title: str, time: str) -> str:
    """Its timer: every day at `HH:MM`, or as soon as the machine is up again (systemd.timer(5))."""
    return "\n".join(
        (
            "[Unit]",
            f"Description={_plain(title)}",
            "",
            "[Timer]",
            f"OnCalendar=*-*-* {time}:00",
            "Persistent=true",
            "",
            "[Install]",
            "WantedBy=timers.target",
            "",
        )
    )


def agent(
    label: str, time: str, words: Sequence[str], variables: Mapping[str, str], log: str
) -> str:
    """A launchd agent (launchd.plist(5)): every day at `HH:MM`, or when the machine wakes.

    Args:
        label: Its unique name.
        time: When, by the machine's clock.
        words: The command, its program an absolute path.
        variables: Its environment, over launchd's own.
        log: A file that its output is added to.
    """
    import plistlib  # macOS only, and slow to load

    hour, _, minute = time.partition(":")
    return plistlib.dumps(
        {
            "Label": label,
            "ProgramArguments": list(words),
            "EnvironmentVariables": dict(variables),
            "StartCalendarInterval": {"Hour": int(hour), "Minute": int(minute)},
            "StandardOutPath": log,
            "StandardErrorPath": log,
            "ProcessType": "Background",
        }
    ).decode()


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("%", "%%")


_ESCAPES = {"\\": "\\\\", '"': '\\"', "%": "%%", "\n": "\\n", "\t": "\\t"}


def _quoted(word: str) -> str:
    """One word: systemd knows double quotes, C's escapes, and specifiers with a percent sign."""
    return '"' + re.sub(r'[\\"%\n\t]', lambda m: _ESCAPES[m.group()], word) + '"'
