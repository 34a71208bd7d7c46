"""The one way to a login node: OpenSSH, or this machine itself.

`Ssh` keeps one ControlMaster connection for the day and sends every script over it; `Local` runs
the same scripts here.  Both take a `Script` and give back its `Answer`.
"""

from rvstate.transport.base import LOCAL, Completed, Finished, Running, Transport
from rvstate.transport.child import control_directory
from rvstate.transport.line import encoded_command, remote_command
from rvstate.transport.local import Local
from rvstate.transport.openssh import Ssh, spawn_ssh, ssh_version
from rvstate.transport.stream import Tap
from rvstate.transport.trouble import explain

__all__ = [
    "LOCAL",
    "Completed",
    "Finished",
    "Local",
    "Running",
    "Ssh",
    "Tap",
    "Transport",
    "control_directory",
    "encoded_command",
    "explain",
    "remote_command",
    "spawn_ssh",
    "ssh_version",
]
