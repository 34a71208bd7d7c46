"""What the user typed after `rvstate run`: which program it means, what it is called; pure."""

from __future__ import annotations

import re
import shlex

from rvstate.errors import ConfigError

_LAUNCHERS = frozenset(
    {
        *("python", "python3", "uv", "run", "torchrun", "accelerate", "launch", "deepspeed"),
        *("bash", "sh", "exec", "env", "nohup", "time", "srun"),
    }
)
_STARTERS = frozenset({"torchrun", "accelerate", "deepspeed", "srun"})
_SCRIPTS = {".py": "python", ".sh": "bash", ".bash": "bash"}
_INTERPRETER = re.compile(r"(?:\S*/)?(?:python[0-9.]*|bash|sh)")
# A log's name has the job's number behind it, a snapshot's the run's id, and 255 bytes are a name.
_MAX_NAME = 120
# How a job is named where the settings do not say: an experiment's is told apart by its code, for
# its command is always the same.
NAME, EXPERIMENT_NAME = "{name}", "{name}:{project}:{branch}"
_PLACEHOLDER = re.compile(r"\{(name|project|branch)\}")
_NAME = re.compile(r"[A-Za-z0-9_@+=][A-Za-z0-9._:@+=-]*")
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


_SHELLS = frozenset(
    {"bash", "sh", "dash", "zsh", "ksh", "fish", "csh", "tcsh", "make", "source", "."}
)


def is_opaque(words: tuple[str, ...]) -> bool:
    """Whether a command is the shell's or make's own, so that nobody can tell what it will need.

    A shell string counts by its first command: `python a.py && ...` is no opaque one.
    """
    parts = list(words)
    if len(parts) == 1:
        if parts[0].endswith((".sh", ".bash")):
            return True
        quoted = re.split(r"[\s;&|]+", parts[0].strip())
        parts = quoted if len(quoted) > 1 else parts
        shell = len(quoted) > 1
    else:
        shell = False
    while parts and (_ASSIGNMENT.match(parts[0]) or parts[0] in ("env", "exec", "nohup", "time")):
        parts = parts[1:]
    if not parts:
        return True
    first = parts[0].rsplit("/", 1)[-1]
    if first in _SHELLS or first.endswith((".sh", ".bash")):
        return True
    return shell and not _STARTS_PYTHON.fullmatch(first)


_STARTS_PYTHON = re.compile(r"python[0-9.]*|torchrun|accelerate|deepspeed|.*\.py")


def job_name(words: tuple[str, ...]) -> str:
    """A name from the command: the script's or the first telling word's, at most 40 characters."""
    parts = words[0].split() if len(words) == 1 else list(words)
    script = script_in(words)
    if script is not None and parts[0] in _STARTERS:
        # which of a launcher's options have values is not known here
        parts = [script]
    skip = False
    code = parts.index("-c") if "-c" in parts else 0
    if code and re.fullmatch(r"(?:\S*/)?python[0-9.]*", parts[code - 1]):
        # a program's text is no name
        return "rv-python"
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


def named(template: str, words: tuple[str, ...], project: str, branch: str) -> str:
    """A job's name by the template of the settings.

    Args:
        template: With `{name}`, `{project}` and `{branch}`, as `check_template` lets it pass.
        words: The command, which `{name}` is made from.
        project: As the workspace's directory is called.
        branch: The same; two branches never share one, for jobs of one name share checkpoints.

    Returns:
        At most 120 characters: log files and snapshots are named after it.
    """
    known = {"name": job_name(words), "project": project, "branch": branch}
    found = _PLACEHOLDER.sub(lambda match: known[match[1]], template)
    if len(found) <= _MAX_NAME:
        return found
    # seldom needed, and loaded by every command else
    import hashlib

    digest = hashlib.sha256(found.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{found[: _MAX_NAME - 9]}-{digest}"


def check_template(template: str) -> None:
    """Refuse a template for names of jobs that would give names that cannot be.

    Raises:
        ConfigError: It knows other words in braces, or holds what stands in no name.
    """
    plain = _PLACEHOLDER.sub("x", template)
    if not _NAME.fullmatch(plain):
        raise ConfigError(
            f"{template!r} makes no names of jobs.",
            "Use {name}, {project} and {branch}, letters, digits and . _ - : + = @ between them.",
        )


def script_in(words: tuple[str, ...]) -> str | None:
    """The first word that names a script, or None."""
    parts = words[0].split() if len(words) == 1 else words
    return next((w for w in parts if not w.startswith("-") and w.endswith(tuple(_SCRIPTS))), None)


def certain_script(words: tuple[str, ...]) -> str | None:
    """The script that the command runs beyond doubt, so that it is an error if it is not there.

    Only behind launchers that are known, and in a shell string only where that is one plain
    command: another program's argument may well be a file that is yet to be written.
    """
    if len(words) == 1 and re.search(r"[\s;&|<>$`(){}*?!~\"']", words[0]):
        words = _plain_command(words[0])
    flag = False
    interpreter = False
    for word in words:
        if word.startswith("-"):
            if word in ("-c", "-m", "--module"):
                return None
            # an interpreter's flags have no value in the next word, but for these
            flag = "=" not in word and (not interpreter or word in ("-W", "-X", "-o", "-O"))
        elif word.endswith(tuple(_SCRIPTS)):
            return word
        elif _INTERPRETER.fullmatch(word):
            flag, interpreter = False, True
        elif word in _LAUNCHERS or _ASSIGNMENT.match(word) or flag:
            flag = False
        else:
            return None
    return None


def _plain_command(text: str) -> tuple[str, ...]:
    """The words of a shell string that is one command without anything for the shell to do."""
    if re.search(r"[;&|<>$`(){}*?!~\n]", text):
        return ()
    try:
        return tuple(shlex.split(text))
    except ValueError:
        return ()


# Options of `rvstate run` that hardly any program has as well.
_MISPLACED = frozenset(
    {
        *(
            "-g",
            "-t",
            "-p",
            "-A",
            "-f",
            "--gpu",
            "--gpus",
            "--gpu-type",
            "--mig",
            "--mem",
            "--cpus",
        ),
        *("--partition", "--account", "--time", "--sbatch", "--follow", "--dry-run", "--writable"),
        *("--type", "--require", "--preset"),
    }
)
# These are commands' own so often that a warning would be noise.
_COMMON = frozenset({"-g", "-t", "-p", "-f", "-A", "--type", "--time", "--account", "--dry-run"})


def warnings(words: tuple[str, ...], root: str) -> tuple[str, ...]:
    """What is probably not meant as typed, in words.

    Args:
        words: The command.
        root: The project's root on this machine.
    """
    found = []
    if len(words) > 1 and words[0].endswith(tuple(_SCRIPTS)):
        found += [_misplaced(word, words[0]) for word in words[1:] if _option(word) in _MISPLACED]
    elif len(words) > 1:
        certain = _MISPLACED - _COMMON
        found += [_misplaced(word, words[0]) for word in words[1:] if _option(word) in certain]
    script = script_in(words)
    if script is not None and script.startswith("/") and not script.startswith(f"{root}/"):
        found.append(
            f"{script} is an absolute path: the job runs that file as it is then on the "
            "cluster, not the code that is sent from here"
        )
    parts = words[0].split() if len(words) == 1 else list(words)
    first = next((part for part in parts if not _ASSIGNMENT.match(part) and part != "env"), "")
    if re.fullmatch(r"/.*/python[0-9.]*", first):
        found.append(f"{first} is that very Python and not the environment's, which is `python`")
    return tuple(dict.fromkeys(found))


def _option(word: str) -> str:
    return word.partition("=")[0]


def _misplaced(word: str, program: str) -> str:
    return (
        f"{word} stands after the command, so it goes to {program}; options of rvstate go before "
        "it, and -- in front of the command says that this is meant"
    )


def paths_in(words: tuple[str, ...]) -> tuple[str, ...]:
    """The words that may name files: those after a `=` too, and those within a shell string."""
    parts = words[0].split() if len(words) == 1 else list(words)
    found = []
    for part in parts:
        found += [part, part.partition("=")[2]] if "=" in part else [part]
    return tuple(word for word in found if word and not word.startswith("-"))
