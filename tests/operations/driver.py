"""Runs one operation against pyinfra's fake host and prints what it sent, as JSON."""

from __future__ import annotations

from rvstate.infra import drive  # isort: skip - gevent first, see there

import json
import sys

from pyinfra.api import Config, Inventory, State
from pyinfra.api.connect import connect_all
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.operation import add_op
from pyinfra.api.operations import run_ops
from pyinfra.connectors.fake import FakeConnector

from rvstate import assets, desired, diff
from rvstate.infra.operations.account import BY_KIND
from rvstate.model.layout import Account, Layout
from rvstate.model.observed import Entry, ObservedState, Present
from rvstate.model.resources import CacheLink, Directory, EnvFile, ScriptSet, ShellBlock
from rvstate.model.settings import Settings
from rvstate.model.site import Site
from rvstate.paths import RemotePath

WHO = Account("u", 1000, RemotePath("/home/u"), RemotePath("/scratch/u"), "/bin/bash")
WANTED = desired.account(Settings(), Site("s", "s"), WHO, {"TOKEN": "hunter2"})


def observed(state: str) -> ObservedState:
    entries: dict[str, Entry] = {
        path: Present("d", 0o755, 1000, 0) for path in ("/home/u", "/scratch/u")
    }
    found = ObservedState(WHO, entries, {}, {}, {}, {}, {"rsync": "/usr/bin/rsync"})
    for resource in WANTED.resources if state != "nothing" else ():
        match resource:
            case Directory(path=path, mode=mode):
                entries[path] = Present("d", mode or 0o755, 1000, 0)
            case CacheLink(path=path, target=target):
                foreign = Present("f", 0o644, 1000, 0)
                link = Present("l", 0o777, 1000, 0, target, "d")
                entries[path] = foreign if state == "foreign" else link
            case EnvFile(path=path, digest=digest):
                entries[path] = Present("f", 0o600, 1000, 0)
                found.digests[path] = digest
            case ScriptSet(path=path, files=files):
                found.digests.update({path / name: digest for name, digest, _ in files})
            case ShellBlock(path=path):
                entries[path] = Present("f", 0o644, 1000, 0)
                found.texts[path] = diff.shell(
                    resource, ObservedState(WHO, {}, {}, {}, {}, {}, {})
                ).after
            case _:
                found.tools["uv"] = "/usr/bin/uv"
    return found


def main(kind: str, state: str) -> dict[str, object]:
    texts: list[str] = []
    run = FakeConnector.run_shell_command

    def keep(self, command, *words, **more):
        texts.append(str(more.get("_stdin", "")))
        return run(self, command, *words, **more)

    FakeConnector.run_shell_command = keep
    inventory = Inventory(([("@fake/x", {"fake_delay": 0, "fake_delay_jitter": 0})], {}))
    pyinfra = State(inventory, Config())
    (host,) = list(inventory)
    connect_all(pyinfra)
    noop: list[str] = []
    host.noop = noop.append
    error = ""
    try:
        add_op(pyinfra, BY_KIND[kind], desired=WANTED, layout=Layout(WHO), observed=observed(state))
        run_ops(pyinfra)
    except PyinfraError as caught:
        error = str(caught)
    script = next(
        (
            name
            for name in ("directories", "caches", "write", "tool")
            if texts and assets.script(name) in texts[0]
        ),
        "",
    )
    return {
        "commands": host.connector.executed_commands,
        "texts": texts,
        "noop": noop[-1] if noop else "",
        "error": error,
        "script": script,
    }


if __name__ == "__main__":
    assert drive
    print(json.dumps(main(*sys.argv[1:])))
