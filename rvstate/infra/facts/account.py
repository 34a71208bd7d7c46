"""The look at an account as one pyinfra fact."""

from __future__ import annotations

from typing import Any

from pyinfra.api import FactBase, StringCommand

from rvstate import probe
from rvstate.errors import ProbeError
from rvstate.model.observed import ObservedState
from rvstate.probe import Question
from rvstate.script import read_any
from rvstate.transport import encoded_command


class AccountFact(FactBase):  # type: ignore[misc] # pyinfra is untyped here
    """What `remote/probe.sh` answers, as an `ObservedState`."""

    def command(self, scratch: str, home: str, asked: tuple[Question, ...]) -> Any:
        """The script in the command itself: facts have no standard input, and it holds no secret.

        Encoded, since with pyinfra's own connectors a csh or fish may be what reads it first.
        """
        self._asked = asked
        return StringCommand(encoded_command(probe.script(scratch, home, asked).text))

    def process(self, output: Any) -> ObservedState:
        """The answer as values."""
        answer = read_any("\n".join(output).encode("utf-8", "surrogateescape") + b"\n")
        if answer is None:
            raise ProbeError("The look got no answer.", "Run `rvstate doctor`.")
        return probe.read(answer, self._asked)
