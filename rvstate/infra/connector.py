"""The pyinfra connector `@openssh`: our transport in pyinfra's form.

`pyinfra @openssh/ALIAS deploys/account.py` goes through the same ControlMaster connection as every
other command of rvstate, so it logs in at most once and honours the user's ssh config.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pyinfra.api.exceptions import ConnectError, InventoryError
from pyinfra.api.output import echo
from pyinfra.api.util import get_file_io
from pyinfra.connectors.base import BaseConnector, ConnectorData, DataMeta
from pyinfra.connectors.util import (
    CommandOutput,
    OutputLine,
    extract_control_arguments,
    make_unix_command_for_host,
)

from rvstate.errors import RvstateError
from rvstate.script import Input
from rvstate.transport import Completed, Ssh, Transport

# Where the transport is kept: one that our own command handed over, or one made here.
OURS = "rvstate_transport"
_OWN = "rvstate_own_transport"
# where the trouble that ended a host is kept for our own commands
ERROR = "rvstate_error"


def _sentence(error: RvstateError) -> str:
    return f"{error.message} {error.remedy}".strip()


class OpensshData(ConnectorData):  # type: ignore[misc] # pyinfra is untyped here
    """Host data that the connector reads."""

    openssh_host: str
    openssh_user: str
    openssh_config: str


class OpensshConnector(BaseConnector):  # type: ignore[misc] # pyinfra is untyped here
    """Run pyinfra's commands over OpenSSH's own client."""

    handles_execution = True
    data_cls = OpensshData
    data_meta = {  # noqa: RUF012 - pyinfra's interface
        "openssh_host": DataMeta("ssh alias or host name"),
        "openssh_user": DataMeta("user there; default: the ssh config's"),
        "openssh_config": DataMeta("another ssh config file, as ssh -F"),
    }

    @staticmethod
    def make_names_data(name: str) -> Iterator[tuple[str, dict[str, Any], list[str]]]:
        """One host for `@openssh/ALIAS`."""
        if not name:
            raise InventoryError("@openssh needs an ssh alias: @openssh/ALIAS")
        yield f"@openssh/{name}", {"openssh_host": name}, []

    def connect(self) -> None:
        """Have the connection, so that what is wrong with it is said before anything else.

        Under our own commands it is there already, and their errors are theirs.
        """
        if OURS in self.host.connector_data:
            return
        transport = self.transport
        assert isinstance(transport, Ssh)
        try:
            transport.open()
        except RvstateError as error:
            raise ConnectError(_sentence(error)) from error

    @property
    def transport(self) -> Transport:
        """The way to this host, kept for its life."""
        kept = self.host.connector_data.get(OURS) or self.host.connector_data.get(_OWN)
        if kept is None:
            data = self.data
            kept = Ssh(
                data["openssh_host"], data["openssh_user"] or None, data["openssh_config"] or None
            )
            self.host.connector_data[_OWN] = kept
        return kept  # type: ignore[no-any-return] # connector_data is untyped

    def run_shell_command(
        self, command: Any, print_output: bool, print_input: bool, **arguments: Any
    ) -> tuple[bool, CommandOutput]:
        """Run one command; standard input may be text or bytes."""
        control = extract_control_arguments(arguments)
        line = make_unix_command_for_host(self.state, self.host, command, **arguments)
        if print_input:
            echo(f"{self.host.print_prefix}>>> {line.get_masked_value()}", err=True)
        try:
            done = self.transport.execute(line.get_raw_value(), _input(control.get("_stdin")))
        except RvstateError as error:
            # pyinfra knows nothing of our errors: a failed command with a reason, on this host
            # alone; our own commands find the error itself again
            self.host.connector_data[ERROR] = error
            done = Completed(255, b"", _sentence(error))
        lines = _lines(done)
        if print_output:
            for text in lines.output_lines:
                echo(f"{self.host.print_prefix}{text}", err=True)
        expected = control.get("_success_exit_codes") or [0]
        return done.status in expected, lines

    def put_file(
        self,
        filename_or_io: Any,
        remote_filename: str,
        remote_temp_filename: str | None = None,
        print_output: bool = False,
        print_input: bool = False,
        **arguments: Any,
    ) -> bool:
        """Upload through standard input to a temporary name, then rename."""
        from rvstate.shell import quote

        with get_file_io(filename_or_io) as file:
            data = file.read()
        part = quote(f"{remote_filename}.rvstate-part")
        done = self.transport.execute(
            f"sh -c {quote(f'umask 077; cat > {part} && mv -f {part} {quote(remote_filename)}')}",
            _bytes(data),
        )
        if done.status != 0:
            raise OSError(done.errors)
        return True

    def get_file(
        self,
        remote_filename: str,
        filename_or_io: Any,
        remote_temp_filename: str | None = None,
        print_output: bool = False,
        print_input: bool = False,
        **arguments: Any,
    ) -> bool:
        """Download through standard output."""
        from rvstate.shell import quote

        done = self.transport.execute(f"cat {quote(remote_filename)}")
        if done.status != 0:
            raise OSError(done.errors)
        with get_file_io(filename_or_io, "wb") as file:
            file.write(done.output)
        return True


def _input(data: Any) -> bytes | Input:
    """Standard input as the transport takes it; a large payload stays on disk until it is sent."""
    return data if isinstance(data, Input) else _bytes(data)


def _bytes(data: Any) -> bytes:
    if data is None:
        return b""
    if isinstance(data, bytes):
        return data
    if isinstance(data, str):
        return data.encode("utf-8", "surrogateescape")
    return b"".join(_bytes(line) + b"\n" for line in data)


def _lines(done: Completed) -> CommandOutput:
    output = done.output.decode("utf-8", "replace").splitlines()
    errors = done.errors.splitlines()
    return CommandOutput(
        [*(OutputLine("stdout", x) for x in output), *(OutputLine("stderr", x) for x in errors)]
    )
