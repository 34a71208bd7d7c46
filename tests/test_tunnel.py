"""Tunnels: a process each, known by boot and start time; it keeps ssh up and ends with it."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rvstate import tunnel
from rvstate.cli.forward import _read
from rvstate.errors import ConfigError, RefusedError, UnreachableError
from rvstate.process import identify
from rvstate.sitetools import listening
from rvstate.tunnel import Tunnel, keeper

# Stands for ssh: listens, notes that it started, and ends when it is told to by a file.
FAKE = """
import os, socket, sys, time
port, folder, fails = int(sys.argv[1]), sys.argv[2], sys.argv[3]
with open(folder + "/starts", "a") as file:
    file.write(f"{os.getpid()}\\n")
starts = len(open(folder + "/starts").read().split())
if fails == "login" and starts > 1 and not os.path.exists(folder + "/login"):
    print("me@there: Permission denied (keyboard-interactive).", file=sys.stderr)
    sys.exit("Connection closed by UNKNOWN port 65535")
if fails == "at once" or (fails == "later" and starts > 1):
    sys.exit("rvstate: job 7 has ended; nothing can be reached in it\\nConnection closed")
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("127.0.0.1", port)); s.listen()
print("rvstate-stands", flush=True)
while not os.path.exists(folder + "/cut"):
    time.sleep(0.02)
os.unlink(folder + "/cut")
"""


@pytest.fixture
def port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((tunnel.HERE, 0))
        found: int = probe.getsockname()[1]
        return found


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Records of tunnels, all of which are ended afterwards."""
    place = tmp_path / "tunnels"
    place.mkdir()
    yield place
    for one in tunnel.tunnels(place):
        tunnel.stop(place, one.port)


def begin(folder: Path, port: int, fails: str = "never") -> Tunnel:
    """Start a tunnel with the stand-in for ssh."""
    new = Tunnel(port, 8888, "n1", "7", "train", "me@there")
    argv = (sys.executable, "-c", FAKE, str(port), str(folder.parent), fails)
    after = (sys.executable, "-c", f"open({str(folder.parent / 'after')!r}, 'w')")
    slot = (f"test-{os.getpid()}-{port}", 2, "there")
    check = ("test", "-e", str(folder.parent / "login"))
    return tunnel.start(folder, new, argv, slot, after, check)


def starts(folder: Path) -> list[int]:
    """The process ids of the stand-ins so far."""
    return [int(pid) for pid in (folder.parent / "starts").read_text().split()]


def until(what: object) -> None:
    """Wait until a call gives something true."""
    assert callable(what)
    end = time.monotonic() + 30
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def gone(pid: int) -> bool:
    """Whether a process has ended, though nobody may have asked for its status yet."""
    return not identify(pid).start


def test_it_stands_is_listed_and_is_stopped_with_all_of_it(folder: Path, port: int) -> None:
    """Its own process, its ssh, its record; and what is behind it is ended too."""
    made = begin(folder, port)
    assert made.state == "up"
    assert tunnel.tunnels(folder) == (made,)
    assert tunnel.stop(folder, port)
    assert gone(starts(folder)[0])
    assert tunnel.tunnels(folder) == ()
    assert not list(folder.glob("*.json"))
    assert (folder.parent / "after").exists()
    assert not tunnel.stop(folder, port)


def test_it_connects_again(folder: Path, port: int) -> None:
    """An ssh that ends is started again, in the same process."""
    begin(folder, port)
    (folder.parent / "cut").touch()
    until(lambda: len(starts(folder)) == 2)
    until(lambda: [t.state for t in tunnel.tunnels(folder)] == ["up"])


@pytest.mark.slow
def test_a_login_is_waited_for_and_not_tried_again(folder: Path, port: int) -> None:
    """Attempts that fail by the clock could lock the account; this machine knows of the login."""
    begin(folder, port, "login")
    (folder.parent / "cut").touch()
    until(lambda: "rvstate login" in "".join(t.reason for t in tunnel.tunnels(folder)))
    time.sleep(2.5)
    assert len(starts(folder)) == 2
    (folder.parent / "login").touch()
    until(lambda: [t.state for t in tunnel.tunnels(folder)] == ["up"])
    assert len(starts(folder)) == 3


def test_it_ends_with_its_job(folder: Path, port: int) -> None:
    """Our own script says so, whatever ssh says behind it; nothing is tried again."""
    begin(folder, port, "later")
    (folder.parent / "cut").touch()
    until(lambda: not list(folder.glob("*.json")))
    assert len(starts(folder)) == 2
    assert not (folder.parent / "after").exists()


def test_one_that_does_not_come_up_says_why_and_leaves_nothing(folder: Path, port: int) -> None:
    """The first attempt is the user's to see."""
    with pytest.raises(UnreachableError, match="job 7 has ended"):
        begin(folder, port, "at once")
    assert not list(folder.glob("*.json"))
    assert len(starts(folder)) == 1


def test_a_taken_port_is_refused_with_the_next_free_one(folder: Path, port: int) -> None:
    """By a stranger or by a tunnel, which is named."""
    with socket.socket() as taken:
        taken.bind((tunnel.HERE, port))
        taken.listen()
        with pytest.raises(RefusedError, match=f"Port {port} of this machine is taken") as caught:
            begin(folder, port)
        free = tunnel.next_free(port)
        assert caught.value.remedy == f"The next free one: rvstate forward {free}:8888"
    begin(folder, port)
    with pytest.raises(RefusedError, match="by the tunnel to n1:8888"):
        begin(folder, port)


def test_a_port_of_root_is_not_called_taken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has it; it may not be had."""
    bind = socket.socket.bind

    class Guarded(socket.socket):
        def bind(self, address: tuple[str, int]) -> None:  # type: ignore[override]
            if address[1] < 1024:
                raise PermissionError(errno.EACCES, "Permission denied")
            bind(self, address)

    monkeypatch.setattr(socket, "socket", Guarded)
    with pytest.raises(RefusedError, match="Only root may listen on port 80") as caught:
        begin(folder, 80)
    free = tunnel.next_free(1024)
    assert caught.value.remedy == f"Use a higher one: rvstate forward {free}:8888"


@pytest.mark.slow
def test_a_port_that_was_taken_meanwhile_is_waited_for(folder: Path, port: int) -> None:
    """A stranger on the port is no tunnel that stands, and the cluster is not asked for nothing."""
    begin(folder, port)
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # ends the stand-in, and takes its port before it comes back
        (folder.parent / "cut").touch()
        until(lambda: bound(stranger, port))
        until(lambda: "was taken meanwhile" in "".join(t.reason for t in tunnel.tunnels(folder)))
        assert len(starts(folder)) == 1
    until(lambda: len(starts(folder)) == 2)
    until(lambda: [t.state for t in tunnel.tunnels(folder)] == ["up"])


def bound(stranger: socket.socket, port: int) -> bool:
    """Listen there, if it can be had."""
    try:
        stranger.bind((tunnel.HERE, port))
    except OSError:
        return False
    stranger.listen()
    return True


def test_two_that_start_at_once_do_not_share_a_port(folder: Path, port: int) -> None:
    """One stands, the other is refused and takes nothing from the first."""
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path\n"
        "from tests.test_tunnel import begin\n"
        "from rvstate.errors import RefusedError\n"
        "try: begin(Path(sys.argv[2]), int(sys.argv[3]))\n"
        "except RefusedError: sys.exit(3)"
    )
    root = str(Path(__file__).parent.parent)
    argv = [sys.executable, "-c", program, root, str(folder), str(port)]
    both = [subprocess.Popen(argv) for _ in range(2)]
    assert sorted(process.wait(60) for process in both) == [0, 3]
    assert [t.state for t in tunnel.tunnels(folder)] == ["up"]
    assert len(starts(folder)) == 1


@pytest.mark.parametrize("swept", [True, False])
def test_what_a_killed_tunnel_leaves_is_ended(folder: Path, port: int, swept: bool) -> None:
    """With kill -9 its ssh stays behind and holds the port; the next command, or stop, ends it."""
    begin(folder, port)
    record = tunnel.read(folder / f"{port}.json")
    assert record is not None
    os.kill(record["process"]["pid"], signal.SIGKILL)
    until(lambda: tunnel.tunnels(folder) == ())
    assert not tunnel.is_free(port)
    if swept:
        tunnel.sweep(folder)
    else:
        assert tunnel.stop_all(folder) == (port,)
    assert tunnel.is_free(port)
    assert gone(starts(folder)[0])
    assert not list(folder.glob("*.json"))


def test_nothing_of_another_boot_is_ended(folder: Path, port: int) -> None:
    """After a reboot the numbers belong to strangers."""
    begin(folder, port)
    path = folder / f"{port}.json"
    record = tunnel.read(path)
    assert record is not None
    other = folder.parent / "other"
    other.mkdir()
    for which in ("process", "child"):
        record[which]["boot"] = "another"
    (other / path.name).write_text(json.dumps(record))
    tunnel.sweep(other)
    assert list(other.iterdir()) == []
    assert [t.state for t in tunnel.tunnels(folder)] == ["up"]
    assert not gone(starts(folder)[0])


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("", "the connection ended"),
        ("rvstate-stands\n", "the connection ended"),
        (
            "ssh: connect to host hpc port 22: Connection refused\r\n"
            "kex_exchange_identification: Connection closed by remote host\n"
            "Connection closed by UNKNOWN port 65535\n",
            "ssh: connect to host hpc port 22: Connection refused",
        ),
        ("rvstate: job 7 has ended\nConnection closed by UNKNOWN port 65535\n", "job 7 has ended"),
        ("Connection closed by UNKNOWN port 65535\n", "Connection closed by UNKNOWN port 65535"),
    ],
)
def test_the_reason_is_the_cause(words: str, why: str) -> None:
    """Not that something ended, but what ended it."""
    assert keeper._why(words.split("\n")) == why


def test_a_recycled_process_number_is_no_tunnel(folder: Path, port: int) -> None:
    """Another process under that number is never counted, and never ended."""
    record = {"pid": os.getpid(), "boot": "another", "start": "1"}
    about = {"port": port, "remote": 1, "node": "n", "job": "1", "name": "x", "account": "a"}
    path = folder / f"{port}.json"
    path.write_text(json.dumps({"tunnel": about, "process": record}))
    assert tunnel.tunnels(folder) == ()
    assert tunnel.stop(folder, port) is False
    assert not path.exists()


@pytest.mark.parametrize(
    ("words", "needed", "found"),
    [
        (("8888",), True, (None, 8888, None)),
        (("8888:80",), True, (None, 8888, 80)),
        (("41", "8888"), True, ("41", 8888, None)),
        (("41",), False, ("41", None, None)),
        ((), False, (None, None, None)),
        (("8888:80",), False, (None, 8888, 80)),
        (("train", "90"), False, ("train", 90, None)),
    ],
)
def test_a_single_word_is_a_port_where_one_is_needed(
    words: tuple[str, ...], needed: bool, found: tuple[object, ...]
) -> None:
    """A job's number and a port look alike."""
    assert _read(words, needed=needed) == found


@pytest.mark.parametrize("words", [(), ("0",), ("65536",), ("a", "b"), ("1", "2", "3"), ("8:",)])
def test_what_is_no_port_is_refused(words: tuple[str, ...]) -> None:
    """Named, with an example."""
    with pytest.raises(ConfigError):
        _read(words, needed=True)


def test_only_the_users_own_listeners_are_found() -> None:
    """State and user id of proc(5); connections and strangers are left out."""
    head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when uid\n"
    row = " 0: {}:{:04X} 00000000:0000 {} 00000000:00000000 00:00000000 00000000 {} 0 1\n"
    rows = (
        ("0100007F", 8888, "0A", 1000),
        ("0100007F", 8889, "01", 1000),
        ("0100007F", 6006, "0A", 1001),
        ("00000000000000000000000001000000", 8000, "0A", 1000),
    )
    text = "1000\n" + head + "".join(row.format(*r) for r in rows)
    assert listening.parse(text) == (8000, 8888)
    assert listening.parse("") == ()
