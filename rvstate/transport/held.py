"""A remote shell that has answered one script and waits for one more command.

To open a session takes a program here, a shell there and a round trip; a command that follows a
look needs none of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rvstate.transport.base import Completed
from rvstate.transport.child import Child
from rvstate.transport.line import held_input


@dataclass(slots=True)
class Held:
    """A command under way whose shell goes on living; see `line.held_command`."""

    child: Child
    nonce: str

    def result(self, timeout: float | None = None) -> Completed:
        """Read the script's answer and keep the shell; `timeout` has no meaning here.

        What failed is ended and told whole, standard error included.
        """
        assert self.child.process.stdout is not None
        # waits for some bytes; os.read would not, once gevent has made the pipe non-blocking
        read: Callable[[int], bytes] = self.child.process.stdout.read1  # type: ignore[attr-defined]
        end = f"\n@@rvstate {self.nonce} end ".encode()
        output = b""
        try:
            while chunk := read(65536):
                output += chunk
                _, found, status = output.rpartition(end)
                if found and status == b"0\n":
                    return Completed(0, output, "")
                if found and status.endswith(b"\n"):
                    break
        except BaseException:
            self.cancel()
            raise
        done = self.child.result()
        return Completed(done.status, output + done.output, done.errors)

    @property
    def alive(self) -> bool:
        """Whether it can take a command, as far as is known here."""
        return self.child.process.poll() is None

    def begin(self, command: str, data: bytes) -> Child:
        """Have the shell run its last command, a line of POSIX shell, with `data` as its input."""
        self.child.data = held_input(command, self.nonce) + data
        self.child.begun = True
        return self.child

    def cancel(self) -> None:
        """End it here; over there it finds its input closed and ends."""
        self.child.cancel()
