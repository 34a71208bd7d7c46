"""Which launcher a command uses, and what it says about nodes and programs; pure."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

Reader = Callable[[str], str | None]

_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_PYTHON = re.compile(r"python[0-9.]*")
_SHELLS = frozenset({"bash", "sh", "zsh", "dash"})
# These run the program behind them.
_BEFORE = frozenset({"exec", "env", "nohup", "time", "command", "then", "do", "else", "!", "{"})
_MPI = frozenset({"mpirun", "mpiexec", "mpiexec.hydra", "orterun"})
# Each starts the programs of its own node, told which node that is.
EACH_NODE = frozenset({"torchrun", "accelerate", "deepspeed"})
# Each starts programs on all nodes by itself.
ALL_NODES = frozenset({"srun", "mpirun"})
# The options that say how many programs there are, and words that mean one for each GPU.
COUNTS = {
    "torchrun": ("nproc_per_node",),
    "accelerate": ("num_processes",),
    "deepspeed": ("num_gpus", "num_accelerators"),
    "srun": ("ntasks_per_node", "tasks_per_node", "ntasks"),
    "mpirun": ("ntasks",),
}
ALL_GPUS = frozenset({"gpu", "auto"})
# What separates commands of the shell; shlex gives runs of these letters as one word.
_BETWEEN = frozenset(";&|()")
# srun(1): options without a value, or whose value may be missing; all others have one.
_SRUN_LETTERS = frozenset("EHIKOQVXZklsuv")
_SRUN_FLAGS = re.compile(
    "contiguous|disable-status|exact|exclusive|hold|immediate|interactive|kill-on-bad-exit|label|"
    "multi-prog|no-allocate|no-kill|overcommit|overlap|oversubscribe|preserve-env|propagate|pty|"
    "quiet|quit-on-interrupt|reboot|send-libs|spread-job|unbuffered|use-min-nodes|verbose"
)
_SRUN_COUNTS = {"n": "ntasks", "N": "nodes"}
_MODULES = {
    "torch.distributed.run": "torchrun",
    "torch.distributed.launch": "torchrun",
    "accelerate.commands.launch": "accelerate -m",
    "deepspeed.launcher.runner": "deepspeed -m",
    "deepspeed.launcher.launch": "deepspeed -m",
}
# The more telling one of a shell string's several programs comes first.
_RANKING = ("torchrun", "accelerate", "deepspeed", "srun", "mpirun", "python")
_CONFIG = re.compile(
    r"^(num_machines|num_processes|distributed_type):\s*['\"]?(\w+)['\"]?\s*$", re.MULTILINE
)
_DEPTH = 3  # scripts that call scripts


@dataclass(frozen=True, slots=True)
class Launcher:
    """The launcher in a command, with the options that say how much it starts.

    Args:
        name: `torchrun`, `accelerate`, `deepspeed`, `srun`, `mpirun`, `python`, or empty where
            nothing is known of the command; `accelerate -m` and `deepspeed -m` for their modules.
        options: Its own options, without dashes, `_` for `-`; empty text where one has no value.
        script: The Python file that it starts, where it is named, from where the user stands.
        inner: The launcher that an `srun` starts, or empty.
        beside: The line's other programs that are known, by script or name.
    """

    name: str = ""
    options: tuple[tuple[str, str], ...] = ()
    script: str | None = None
    inner: str = ""
    beside: tuple[str, ...] = ()

    def option(self, *names: str) -> str | None:
        """The value of the last of these options, or None where none is given."""
        return next((value for key, value in reversed(self.options) if key in names), None)

    def number(self, *names: str) -> int | None:
        """The value as a number, or None where none is given or it is a word such as `gpu`."""
        value = self.option(*names) or ""
        return int(value) if value.isdecimal() else None


def find(words: tuple[str, ...], read: Reader) -> Launcher:
    """The launcher of a command, looked for in shell strings and in the project's shell scripts.

    Args:
        words: As typed.
        read: The text of a file of the project, or None.
    """
    single = len(words) == 1
    found = list(_of_text(words[0], read, _DEPTH) if single else _of_words(words, read, _DEPTH))
    known = [x for x in found if x.name]
    if not known:
        return Launcher()
    best = min(known, key=lambda x: _rank(x.name))
    beside = tuple(x.script or x.name for x in known if x is not best)
    return replace(best, beside=beside)


def _with_config(found: Launcher, read: Reader) -> Launcher:
    """What accelerate's own file of the project says, in front of the options, which win."""
    name = found.option("config_file")
    text = read(name) if name else None
    if text is None:
        return found
    return replace(found, options=(*_CONFIG.findall(text), *found.options))


def _rank(name: str) -> int:
    return _RANKING.index(name.partition(" ")[0])


def _of_text(text: str, read: Reader, depth: int) -> Iterator[Launcher]:
    """The launchers of a line or a script of the shell, in the directories that it goes to."""
    command: list[str] = []
    here, outer = "", list[str]()
    for word in (*_lexed(text), ";"):
        if not word or not set(word) <= _BETWEEN:
            command.append(word)
            continue
        if len(command) == 2 and command[0] == "cd":
            here = posixpath.normpath(posixpath.join(here, command[1]))
        elif command:
            yield from _within(here, tuple(command), read, depth)
        command = []
        for letter in word:
            # what is in parentheses leaves the directory as it was
            if letter == "(":
                outer.append(here)
            elif letter == ")" and outer:
                here = outer.pop()


def _within(here: str, words: tuple[str, ...], read: Reader, depth: int) -> Iterator[Launcher]:
    """The launchers of a command that runs in a directory below the one of the user."""
    for found in _of_words(words, lambda name: read(posixpath.join(here, name)), depth):
        script = posixpath.normpath(posixpath.join(here, found.script)) if found.script else None
        yield replace(found, script=script)


def _lexed(text: str) -> list[str]:
    # a line break ends a command as `;` does, unless a backslash takes it away
    flat = text.replace("\\\n", " ").replace("\n", "\n; ")
    try:
        lexer = shlex.shlex(flat, posix=True, punctuation_chars=";&|()")
        lexer.whitespace_split = True
        return list(lexer)
    except ValueError:
        # not closed: a here-document, most often
        return re.findall(r"[;&|()]+|[^\s;&|()]+", flat)


def _of_words(words: tuple[str, ...], read: Reader, depth: int) -> Iterator[Launcher]:
    """The launcher of one command; of what it runs where that is a shell."""
    words = _without_prefix(words)
    if not words:
        return
    name = words[0].rsplit("/", 1)[-1]
    if name in _SHELLS:
        yield from _of_shell(words[1:], read, depth)
    elif name.endswith((".sh", ".bash")):
        yield from _of_file(words[0], read, depth)
    elif name == "torchrun":
        yield _with_options("torchrun", words[1:])
    elif name == "accelerate" and words[1:2] == ("launch",):
        yield _with_config(_with_options("accelerate", words[2:]), read)
    elif name == "deepspeed":
        yield _with_options("deepspeed", words[1:])
    elif name == "srun":
        yield _of_srun(words[1:], read, depth)
    elif name in _MPI:
        yield _of_mpirun(words[1:])
    elif _PYTHON.fullmatch(name):
        yield _of_python(words[1:], read)
    elif name.endswith(".py"):
        yield Launcher("python", script=words[0])
    else:
        yield Launcher()


def _without_prefix(words: tuple[str, ...]) -> tuple[str, ...]:
    """The command behind assignments, `env`, `exec`, `uv run` and the like."""
    while words:
        if _ASSIGNMENT.match(words[0]) or words[0] in _BEFORE:
            words = words[1:]
        elif words[:2] == ("uv", "run"):
            words = words[2:]
        else:
            break
    return words


def _of_shell(words: tuple[str, ...], read: Reader, depth: int) -> Iterator[Launcher]:
    for at, word in enumerate(words):
        if not word.startswith("-"):
            yield from _of_file(word, read, depth)
            return
        if word.endswith("c") and not word.startswith("--") and at + 1 < len(words):
            yield from _of_text(words[at + 1], read, depth)
            return


def _of_file(name: str, read: Reader, depth: int) -> Iterator[Launcher]:
    text = read(name) if depth else None
    if text is None:
        yield Launcher()
        return
    yield from _of_text(text, read, depth - 1)


def _of_srun(words: tuple[str, ...], read: Reader, depth: int) -> Launcher:
    """How many programs an srun starts, and what they are."""
    rest = list(words)
    found: list[tuple[str, str]] = []
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        if word.startswith("--"):
            key, has_value, value = word[2:].partition("=")
            flag = bool(_SRUN_FLAGS.fullmatch(key))
        else:
            key, value = _SRUN_COUNTS.get(word[1:2], word[1:2]), word[2:].lstrip("=")
            has_value, flag = value, word[1:2] in _SRUN_LETTERS
        if not has_value and not flag and rest:
            value = rest.pop(0)
        found.append((key.replace("-", "_"), value))
    inner = next(_of_words(tuple(rest), read, depth), Launcher())
    return Launcher("srun", tuple(found), inner.script, inner.name)


def _of_mpirun(words: tuple[str, ...]) -> Launcher:
    """How many programs MPI is told to start: the first count, for more may be the program's."""
    for at, word in enumerate(words):
        if word in ("-n", "-np", "--np", "--n", "-c") and at + 1 < len(words):
            return Launcher("mpirun", (("ntasks", words[at + 1]),))
        if _PYTHON.fullmatch(word.rsplit("/", 1)[-1]):
            break
    return Launcher("mpirun")


def _of_python(words: tuple[str, ...], read: Reader) -> Launcher:
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "-m" and rest:
            module = rest.pop(0)
            known = _MODULES.get(module)
            if known:
                return _with_options(known, tuple(rest))
            path = module.replace(".", "/")
            files = (f"{path}.py", f"{path}/__main__.py")
            of_project = (root + file for root in ("", "src/") for file in files)
            script = next((name for name in of_project if read(name) is not None), None)
            return Launcher("python", script=script)
        if word in ("-X", "-W") and rest:
            rest.pop(0)
        elif not word.startswith("-"):
            return Launcher("python", script=word)
        elif word == "-c":
            break
    return Launcher("python")


def _with_options(name: str, words: tuple[str, ...]) -> Launcher:
    """A launcher's own options: those before the script that it starts.

    Which of them take a value is not known here: one that is followed by a word takes it, unless
    that is the script.
    """
    found: list[tuple[str, str]] = []
    script = None
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        if not word.startswith("-"):
            script = word
            break
        key, has_value, value = word.lstrip("-").partition("=")
        if key in ("m", "module"):
            break
        after = words[at] if at < len(words) else "-"
        if not has_value and not after.startswith("-") and not after.endswith(".py"):
            value = after
            at += 1
        found.append((key.replace("-", "_"), value))
    return Launcher(name, tuple(found), script)
