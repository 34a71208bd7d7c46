"""The exception tree: each error is one sentence, a remedy, and an exit code.

    RvstateError (1)
    ├── ConfigError (64)            a setting or an argument is wrong
    ├── MissingToolError (1)        a program that is needed is not there
    ├── UnreachableError (1)        the login node did not answer
    │   └── CutError (1)            it did, and the connection ended in the middle
    ├── NotAuthenticatedError (75)  it answered, and wants a login that cannot be given now
    ├── ProbeError (1)              the answer to a look made no sense
    ├── RefusedError (3)            doing it could harm something that is not ours
    ├── ConvergeError (1)           a change was started and failed
    ├── SubmitError (1)             Slurm did not take the job
    ├── UnsupportedError (3)        this site cannot do that
    └── ParseError (1)              text of another program was not understood

Exit codes follow sysexits.h where it has one (64 EX_USAGE, 75 EX_TEMPFAIL).
"""

from __future__ import annotations

from collections.abc import Iterable

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_CHANGES = 2
EXIT_REFUSED = 3
EXIT_USAGE = 64
EXIT_NOT_AUTHENTICATED = 75
EXIT_INTERRUPTED = 130


class RvstateError(Exception):
    """Something that a user can read and act on.

    Args:
        message: One sentence that says what happened, naming the input.
        remedy: One sentence that says what to do next; may be empty.
    """

    exit_code = EXIT_FAILED

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


class ConfigError(RvstateError):
    """A setting or an argument is wrong."""

    exit_code = EXIT_USAGE


class MissingToolError(RvstateError):
    """A program that this needs is not installed."""


class UnreachableError(RvstateError):
    """The login node did not answer, or the connection ended in the middle."""


class CutError(UnreachableError):
    """The connection ended in the middle: what was begun may have run, and may still run."""


class NotAuthenticatedError(RvstateError):
    """The login node wants a login that cannot be given without a person."""

    exit_code = EXIT_NOT_AUTHENTICATED


class ProbeError(RvstateError):
    """The answer to a look could not be read."""


class RefusedError(RvstateError):
    """Going on could harm something that is not ours."""

    exit_code = EXIT_REFUSED


class UnsupportedError(RvstateError):
    """The site cannot do what was asked, by its nature."""

    exit_code = EXIT_REFUSED


class ConvergeError(RvstateError):
    """A change was started and failed."""


class SubmitError(RvstateError):
    """The scheduler did not take the job."""


class ParseError(RvstateError):
    """Text of another program (Slurm, crontab, git) was not understood."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C at a moment at which it is not enough to say so, for something goes on without it.

    Args:
        message, remedy: As those of `RvstateError`.
    """

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


def nearest(word: str, known: Iterable[str], likeness: float = 0.6) -> str | None:
    """The known word most like `word`, for "did you mean"; None where none is like it.

    Args:
        word: What was written.
        known: What could have been meant.
        likeness: From 0 to 1, how alike they must be at least.
    """
    # loaded only when there is something to complain about
    import difflib

    return next(iter(difflib.get_close_matches(word, list(known), 1, likeness)), None)
