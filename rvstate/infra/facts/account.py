"""The look at an account as one pyinfra fact."""

from __future__ import annotations

import hashlib
from typing import Any

from pyinfra.api import FactBase, QuoteString, StringCommand

from rvstate import probe
from rvstate.errors import ProbeError
from rvstate.model.observed import ObservedState
from rvstate.probe import Question
from rvstate.script import Script, read_answer


class AccountFact(FactBase):  # type: ignore[misc] # pyinfra is untyped here
    """What `remote/probe.sh` answers, as an `ObservedState`."""

    def command(self, scratch: str, home: str, asked: tuple[Question, ...]) -> Any:
        """The script in the command itself: facts have no standard input, and this holds no secret."""
        self._asked = asked
        self._nonce = hashlib.sha256(repr((scratch, home, asked)).encode()).hexdigest()[:16]
        look = probe.script(scratch, home, asked)
        text = Script(look.name, look.args, nonce=self._nonce).text
        return StringCommand("sh", "-c", QuoteString(text))

    def process(self, output: Any) -> ObservedState:
        """The answer as values."""
        text = "\n".join(output).encode("utf-8", "surrogateescape") + b"\n"
        answer = read_answer(self._nonce, text)
        if answer is None:
            raise ProbeError("The look got no answer.", "Run `rvstate doctor`.")
        return probe.read(answer, self._asked)
