"""What a job's own words say about its environment, and what to do; pure."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What happened, in one sentence, and what to do about it, in another."""

    message: str
    remedy: str


# Pattern, message ({0} is what its group matched), remedy; the likeliest cause first.
_KNOWN: tuple[tuple[str, str, str], ...] = (
    (
        r"rvstate: the environment's packages \((.*?)\) could not be built",
        "The packages {0} could be built neither on the login node nor on the compute node, so "
        "your program was not started.",
        "Pin a version that has a wheel, name its build requirements in the sources, or set "
        "[modules] compiler; the compiler's words are in `rvstate logs --err`.",
    ),
    (
        r"rvstate: (the environment) could not be built",
        "The first job was to build {0} and could not, so your program was not started.",
        "Mend what the resolver's or the compiler's words in `rvstate logs --err` say; without "
        '[environment] build = "job" most of it is found before a job is submitted.',
    ),
    (
        r"rvstate: the environment (\S+) is gone",
        "The environment {0} was removed after the job had been submitted.",
        "Run the command again: it is built anew.",
    ),
    (
        r"version `((?:GLIBCXX|CXXABI)_[\d.]+)' not found",
        "The node's libstdc++ is too old: {0} was not found.",
        'Load a newer compiler ([modules] extra = ["gcc/..."]), or name its library: '
        "`rvstate env set LD_LIBRARY_PATH /path/to/gcc/lib64`.",
    ),
    (
        r"version `(GLIBC_[\d.]+)' not found",
        "A package was built for a newer system: {0} was not found.",
        'Pin an older version of it, or use a container ([environment] kind = "apptainer").',
    ),
    (
        r"(CUDA driver version is insufficient|no kernel image is available for execution"
        r"|The NVIDIA driver on your system is too old|detected CUDA version \S+ mismatches)",
        "The CUDA that the packages were built for and the node's do not fit ({0}).",
        "Install builds for another CUDA (an index option in requirements.txt), or set [modules] "
        "cuda; `rvstate run --probe` shows both.",
    ),
    (
        r"SyntaxError: (f-string expression.* backslash|future feature annotations)",
        "The program was read by a Python that is too old for it, most likely the system's ({0}).",
        "Start `python`, which is the environment's, and no path of an interpreter; "
        "`rvstate run --probe` shows which one a job gets.",
    ),
    (
        r"rvstate: the job does not get the Python of its environment; (.*); nothing was run",
        "The job did not get the Python of its environment: {0}.",
        "Mend that and run the command again; `rvstate run --probe` checks it in the smallest job.",
    ),
    (
        r"exec: (python[\d.]*): not found",
        "The node has no program {0}, and the run has no environment.",
        "Declare one (requirements.txt), or set [modules] python to a module that brings it.",
    ),
    (
        r"(not a git repository|git\.exc\.InvalidGitRepositoryError)",
        "The program asked git, and no .git travels with the code ({0}).",
        "RV_COMMIT, RV_BRANCH and RV_DIRTY hold what git would have said.",
    ),
    (
        r"(\S+\.so\S*: (?:file too short|invalid ELF header)|bad marshal data)",
        "The environment is damaged: {0}.",
        "`rvstate converge` takes what is damaged out of use, and the next run builds it anew.",
    ),
)
_MISSING = re.compile(r"ModuleNotFoundError: No module named '([^']+)'")
# What every job says at its start.
_START = re.compile(r"^rvstate: python is .*$", re.M)
# A Python that no environment is made from, as tracebacks name its library.
_OTHER = re.compile(
    r"rvstate: (/\S+) is another Python than the environment's"
    r'|File "(/usr[^"\n]*/lib(?:64)?/python(?:2\.\d|3\.[0-7])|/[^"\n]*/\.local/lib/python[\d.]+)/'
)


def diagnose(text: str) -> tuple[Diagnosis, ...]:
    """What is recognised in the end of a log, the likeliest cause first; nothing where it is not.

    Args:
        text: The last part of what the job wrote, standard error included.
    """
    found = []
    text = _START.sub("", text)
    for pattern, message, remedy in _KNOWN:
        match = re.search(pattern, text)
        if match is not None:
            found.append(Diagnosis(message.format(match[1]), remedy))
    missing = _MISSING.search(text)
    if missing is not None:
        found.append(_missing(missing[1].partition(".")[0], text))
    return tuple(found[:2])


def _missing(name: str, text: str) -> Diagnosis:
    other = _OTHER.search(text)
    if (other is not None and "/.rv/envs/" not in text) or name == "dataclasses":
        which = (other[1] or other[2]) if other else "one older than 3.7"
        return Diagnosis(
            f"{name} was looked for by another Python than the environment's ({which}).",
            "Start `python`, not a path of an interpreter, load no module of Python inside the "
            "job, and name scripts relative to the project.",
        )
    return Diagnosis(
        f"The environment has no module {name}.",
        f"Add the package that brings {name} to the requirements and run the command again; "
        "`rvstate env show` lists what is there.",
    )
