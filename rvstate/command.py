"""What the user typed after `rvstate run`: which program it means, and what the job is called; pure."""

from __future__ import annotations

import re

_LAUNCHERS = frozenset(
    "python python3 uv run torchrun accelerate launch deepspeed bash sh exec env nohup time srun".split()
)
_SCRIPTS = {".py": "python", ".sh": "bash", ".bash": "bash"}
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")


def resolve(words: tuple[str, ...]) -> tuple[str, ...]:
    """The words that the job runs.

    Args:
        words: As typed: `train.py --lr 1`, `python train.py`, `torchrun …`, or one shell string.

    Returns:
        `train.py` becomes `python train.py`, a script of the shell `bash …`; `VAR=1 python …` goes
        through `env`; one word with blanks or shell characters is a shell string for bash.
    """
    if len(words) == 1 and re.search(r"[\s;&|<>$`(){}*?!~\"']", words[0]):
        return ("bash", "-c", words[0])
    first = words[0]
    for suffix, program in _SCRIPTS.items():
        if first.endswith(suffix):
            return (program, *words)
    if _ASSIGNMENT.match(first):
        return ("env", *words)
    return words


def job_name(words: tuple[str, ...]) -> str:
    """A name from the command: the script's or the first telling word's, at most 40 characters."""
    parts = words[0].split() if len(words) == 1 else list(words)
    skip = False
    for word in parts:
        if skip or word in _LAUNCHERS or _ASSIGNMENT.match(word):
            skip = False
            continue
        if word.startswith("-"):
            # a flag without `=` most often has its value in the next word
            skip = "=" not in word and word not in ("-m", "-c", "-u")
            continue
        name = word.rsplit("/", 1)[-1]
        name = name.rsplit(".", 1)[0] if "." in name.strip(".") else name
        clean = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-")
        if clean:
            return f"rv-{clean}"
    return "rv-job"


def script_in(words: tuple[str, ...]) -> str | None:
    """The first word that names a script, or None."""
    parts = words[0].split() if len(words) == 1 else words
    return next((w for w in parts if not w.startswith("-") and w.endswith(tuple(_SCRIPTS))), None)
