"""Several questions put with one remote command, and those that status, cost and usage share."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

from rvstate.script import Answer, Script, read_any
from rvstate.shell import join
from rvstate.sitetools import allocations, hdquota
from rvstate.sitetools.allocations import Balance
from rvstate.workflows.session import Session

# A site's own tool may ask a server that hangs; people wait for the slowest of the answers.
_PATIENCE = 10  # seconds
_TIMED_OUT, _NOT_THERE = 124, 127  # timeout(1)
_PLACES = ("home", "scratch")


@dataclass(frozen=True, slots=True)
class Said:
    """The answer to one question.

    Args:
        status: Its exit status; 1 where nothing came.
        body: What it printed.
        errors: What it printed as errors.
    """

    status: int = 1
    body: bytes = b""
    errors: str = ""

    @property
    def text(self) -> str | None:
        """What was answered; None where the question failed or was not put."""
        return self.body.decode("utf-8", "replace") if self.status == 0 else None

    @property
    def framed(self) -> Answer | None:
        """The answer of a whole script; None where it gave none."""
        found = read_any(self.body)
        return None if found is None else dataclasses.replace(found, errors=self.errors)

    def trouble(self, tool: str) -> str:
        """Why a program told nothing, in a sentence; empty where it did."""
        if self.status == 0:
            return ""
        if self.status == _NOT_THERE:
            return f"{tool} is not there."
        if self.status == _TIMED_OUT:
            return f"{tool} did not answer within {_PATIENCE} seconds."
        lines = self.errors.strip().splitlines()
        return f"{tool} failed: {lines[-1] if lines else f'exit code {self.status}'}"


Answers = dict[str, Said]


def site_trouble(answers: Answers) -> tuple[str, ...]:
    """What the site's own tools could not tell; one that a site does not have is no trouble."""
    found = []
    for tool, parse in (("allocations", allocations.parse), ("hdquota", hdquota.parse)):
        said = answers.get(tool, Said(_NOT_THERE))
        if said.text is None and said.status != _NOT_THERE:
            found.append(said.trouble(tool))
        elif said.text and not parse(said.text):
            found.append(f"{tool} printed nothing that can be read.")
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Storage:
    """How full one place is.

    Args:
        name: What it is.
        path: Where it is.
        size: Bytes that it may hold.
        used: Bytes that it holds.
        inodes: Files and directories that it may hold, or None where nobody knows a limit.
        inodes_used: Those that it holds, or None.
        quota: Whether the bytes are the user's own share, by the site's tool, rather than the
            whole file system.
    """

    name: str
    path: str
    size: int
    used: int
    inodes: int | None
    inodes_used: int | None
    quota: bool


def ask(session: Session, questions: dict[str, str]) -> Answers:
    """Put several questions with one remote command.

    Args:
        session: Which account.
        questions: Name to a command line or a whole script (see `remote/ask.sh`).

    Returns:
        An answer for each of them.
    """
    words = [word for pair in questions.items() for word in pair]
    answer = session.transport.run(Script("ask", (session.scratch, session.home, *words)))
    found = dict.fromkeys(questions, Said(errors=answer.errors))
    for header, body in answer.sections:
        name, _, word = header.rpartition(" ")
        if name not in found:
            continue
        if word == "errors":
            found[name] = dataclasses.replace(found[name], errors=body.decode("utf-8", "replace"))
        else:
            found[name] = Said(int(word) if word.isdigit() else 1, body)
    return found


def allocations_question() -> dict[str, str]:
    """What asks for the balances of the user's accounts."""
    return {"allocations": _patiently(allocations.COMMAND)}


def storage_questions(session: Session) -> dict[str, str]:
    """What asks how full the user's places are (see `storage`)."""
    slurm = session.config.site.scheduler != "process"
    # a file server may hang; a machine of the user's own may have no timeout(1)
    df = f"timeout {_PATIENCE} df" if slurm else "df"
    found = {
        name: f'printf "%s\n" "$rv_{name}" && {df} -Pk "$rv_{name}" && {df} -Pi "$rv_{name}"'
        for name in _PLACES
    }
    tool = session.config.site.quota
    # a command line, as the profile has it
    return {**found, "hdquota": _patiently(("sh", "-c", tool))} if slurm and tool else found


def _patiently(command: tuple[str, ...]) -> str:
    return join(("timeout", str(_PATIENCE), *command))


def storage_trouble(answers: Answers) -> tuple[str, ...]:
    """Which places nobody could tell of."""
    missing = (name for name in _PLACES if answers[name].text is None)
    return tuple(answers[name].trouble(f"df of {name}") for name in missing)


def balances(answers: Answers) -> tuple[Balance, ...] | None:
    """The balances among the answers; None where the site tells none."""
    text = answers.get("allocations", Said()).text
    return (allocations.parse(text) or None) if text is not None else None


_DF = re.compile(r".*?\s([0-9]+)\s+([0-9]+)\s+(-?[0-9]+)\s+(?:[0-9]+%|-)\s+/.*")


def storage(answers: Answers) -> tuple[Storage, ...]:
    """The site's own figures where there are any; the file system's for the rest and for inodes."""
    own = {quota.path: quota for quota in hdquota.parse(answers.get("hdquota", Said()).text or "")}
    found = []
    for name in _PLACES:
        path, *lines = (answers.get(name, Said()).text or "").splitlines() or [""]
        rows = [m for line in lines if (m := _DF.fullmatch(line)) is not None]
        if len(rows) != 2:
            continue
        limit, held = int(rows[1][1]), int(rows[1][2])
        place = Storage(
            name=name,
            path=path,
            size=int(rows[0][1]) * 1024,
            used=int(rows[0][2]) * 1024,
            # file systems without a fixed number of them say zero
            inodes=limit or None,
            inodes_used=held if limit else None,
            quota=False,
        )
        quota = own.pop(path, None)
        if quota is not None:
            place = dataclasses.replace(place, size=quota.size, used=quota.used, quota=True)
        found.append(place)
    rest = (Storage(q.name, q.path, q.size, q.used, None, None, True) for q in own.values())
    return (*found, *rest)
