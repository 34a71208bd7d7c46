"""The transport without a network: what ssh says, what is repeated, streams, sessions, sockets."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvstate import transport
from rvstate.errors import (
    ConfigError,
    MissingToolError,
    NotAuthenticatedError,
    ProbeError,
    RefusedError,
    RvstateError,
    UnreachableError,
)
from rvstate.script import Script
from rvstate.transport import Local, Ssh, Tap, control_directory, encoded_command, explain

CHANGED = """\
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!
Someone could be eavesdropping on you right now (man-in-the-middle attack)!
The fingerprint for the ED25519 key sent by the remote host is
SHA256:IbsAZ7NYzeXEpv9QeVs9F1t9D2eKVvjIARgq+6cJHsw.
Host key for [10.0.0.2]:2222 has changed and you have requested strict checking.
Host key verification failed.
"""
UNKNOWN = """\
No ED25519 host key is known for [10.0.0.2]:2222 and you have requested strict checking.
Host key verification failed.
"""
JUMP_9 = """\
stdio forwarding failed
kex_exchange_identification: Connection closed by remote host
"""
JUMP_8 = """\
channel 0: open failed: connect failed: Connection refused
stdio forwarding failed
kex_exchange_identification: Connection closed by remote host
Connection closed by UNKNOWN port 65535
"""
KEY_MODE = """\
@         WARNING: UNPROTECTED PRIVATE KEY FILE!          @
Permissions 0644 for '/home/u/.ssh/id_ed25519' are too open.
Load key "/home/u/.ssh/id_ed25519": bad permissions
u@10.0.0.2: Permission denied (publickey).
"""

# What ssh printed, which error it is, and a word that the sentence must hold.
SAID: tuple[tuple[str, type[RvstateError], int, str], ...] = (
    (CHANGED, RefusedError, 3, "has changed"),
    ("@ WARNING: REVOKED HOST KEY DETECTED! @\n", RefusedError, 3, "revoked"),
    (UNKNOWN, NotAuthenticatedError, 75, "not known"),
    ("Host key verification failed.\n", NotAuthenticatedError, 75, "not known"),
    (
        "ssh: Could not resolve hostname nowhere.invalid: Name or service not known\n",
        UnreachableError,
        1,
        "cannot be resolved",
    ),
    (
        "ssh: Could not resolve hostname hpc: nodename nor servname provided, or not known\n",
        UnreachableError,
        1,
        "cannot be resolved",
    ),
    (
        "ssh: Could not resolve hostname hpc: Temporary failure in name resolution\n",
        UnreachableError,
        1,
        "No name can be resolved",
    ),
    ("ssh: connect to host hpc port 22: Connection refused\n", UnreachableError, 1, "refuses"),
    ("ssh: connect to host hpc port 22: Connection timed out\n", UnreachableError, 1, "not answer"),
    ("ssh: connect to host hpc port 22: Operation timed out\n", UnreachableError, 1, "not answer"),
    ("Connection timed out during banner exchange\n", UnreachableError, 1, "not answer"),
    ("ssh: connect to host hpc port 22: No route to host\n", UnreachableError, 1, "not answer"),
    ("ssh: connect to host hpc port 22: Host is down\n", UnreachableError, 1, "not answer"),
    (
        "ssh: connect to host hpc port 22: Network is unreachable\n",
        UnreachableError,
        1,
        "not answer",
    ),
    (
        "ssh: connect to host hpc port 22: Can't assign requested address\n",
        UnreachableError,
        1,
        "not answer",
    ),
    ("Timeout, server 10.0.0.2 not responding.\r\n", UnreachableError, 1, "not answer"),
    ("u@10.0.0.2: Permission denied (publickey).\n", NotAuthenticatedError, 75, "needs you"),
    (
        "u@10.0.0.2: Permission denied (keyboard-interactive).\n",
        NotAuthenticatedError,
        75,
        "needs you",
    ),
    (
        "Received disconnect from 10.0.0.2 port 22:2: Too many authentication failures\n"
        "Disconnected from 10.0.0.2 port 22\n",
        NotAuthenticatedError,
        75,
        "needs you",
    ),
    (
        'sign_and_send_pubkey: signing failed for RSA "k" from agent: agent refused operation\n',
        NotAuthenticatedError,
        75,
        "needs you",
    ),
    (KEY_MODE, NotAuthenticatedError, 75, "others may read"),
    ("Your account has expired; please contact support\n", NotAuthenticatedError, 75, "expired"),
    ("WARNING: Your password has expired.\n", NotAuthenticatedError, 75, "expired"),
    (
        "Unable to negotiate with 10.0.0.2 port 22: no matching host key type found.\n",
        UnreachableError,
        1,
        "no common",
    ),
    (JUMP_9, UnreachableError, 1, "jump host"),
    (JUMP_8, UnreachableError, 1, "jump host"),
    (
        "kex_exchange_identification: Connection closed by remote host\n",
        UnreachableError,
        1,
        "turns away",
    ),
    (
        "kex_exchange_identification: read: Connection reset by peer\n",
        UnreachableError,
        1,
        "turns away",
    ),
    (
        "ssh_exchange_identification: Connection closed by remote host\n",
        UnreachableError,
        1,
        "turns away",
    ),
    (
        "mux_client_request_session: session request failed: Session open refused by peer\n",
        UnreachableError,
        1,
        "no further session",
    ),
    ("client_loop: send disconnect: Broken pipe\r\n", UnreachableError, 1, "was cut"),
    ("Connection to hpc closed by remote host.\r\n", UnreachableError, 1, "was cut"),
    ("Shared connection to hpc closed.\r\n", UnreachableError, 1, "was cut"),
    ("Connection closed by 10.0.0.2 port 22\r\n", UnreachableError, 1, "was cut"),
    (
        "/home/u/.ssh/config: line 1: Bad configuration option: bad\n"
        "/home/u/.ssh/config: terminating, 1 bad configuration options\n",
        ConfigError,
        64,
        "configuration",
    ),
    (
        "Can't open user config file /home/u/none: No such file or directory\n",
        ConfigError,
        64,
        "configuration",
    ),
    ("Bad owner or permissions on /home/u/.ssh/config\n", ConfigError, 64, "configuration"),
)


@pytest.mark.parametrize(("said", "kind", "status", "word"), SAID, ids=[s[0][:40] for s in SAID])
def test_what_ssh_says_is_one_sentence_with_a_remedy(
    said: str, kind: type[RvstateError], status: int, word: str
) -> None:
    """Each text that ssh prints becomes one sentence that names the host, and a way on."""
    error = explain("hpc", said)
    assert error is not None
    assert type(error) is kind
    assert error.exit_code == status
    assert word in error.message
    assert "hpc" in error.message
    assert error.message.count(". ") == 0
    assert error.remedy


def test_what_ssh_does_not_say_is_not_explained() -> None:
    """Text of another program is not taken for ssh's."""
    assert explain("hpc", "make: *** [all] Error 2\n") is None


# -- what is repeated ---------------------------------------------------------------------------


@pytest.fixture
def fake_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """An `ssh` that fails so many times with a text, then runs the command here."""
    monkeypatch.setattr("rvstate.transport.openssh.time.sleep", lambda _: None)
    log = tmp_path / "calls"

    def make(said: str, times: int, *, before: str = "") -> Path:
        (tmp_path / "said").write_text(said)
        (tmp_path / "before").write_text(before)
        program = tmp_path / "bin" / "ssh"
        program.parent.mkdir()
        program.write_text(
            "#!/bin/sh\n"
            f"cd {tmp_path}\n"
            "for last; do case $last in -O | -G) exit 255 ;; esac; done\n"
            "echo x >>calls\n"
            f'if [ "$(wc -l <calls)" -le {times} ]; then\n'
            "  cat before; cat said >&2; exit 255\n"
            "fi\n"
            'exec sh -c "$last"\n'
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        return log

    return make


def _calls(log: Path) -> int:
    return len(log.read_text().splitlines())


PROBE = ("/tmp", "")


def test_a_login_that_sshd_dropped_is_tried_again(fake_ssh: Callable[..., Path]) -> None:
    """MaxStartups refusals are repeated, and the answer then comes."""
    log = fake_ssh("kex_exchange_identification: Connection closed by remote host\n", 3)
    assert Ssh("hpc").run(Script("probe", PROBE)).status == 0
    assert _calls(log) == 4


def test_trying_again_has_an_end(fake_ssh: Callable[..., Path]) -> None:
    """A host that goes on turning us away is left alone after five tries."""
    log = fake_ssh("kex_exchange_identification: Connection closed by remote host\n", 99)
    with pytest.raises(UnreachableError, match="turns away"):
        Ssh("hpc").run(Script("probe", PROBE))
    assert _calls(log) == 5


@pytest.mark.parametrize(
    "said",
    [
        "client_loop: send disconnect: Broken pipe\n",
        "Connection to hpc closed by remote host.\n",
        "mux_client_request_session: read from master failed: Broken pipe\n",
        "client_loop: send disconnect: Connection reset by peer\n",
        "",
        JUMP_9,
        CHANGED,
        "u@hpc: Permission denied (publickey).\n",
    ],
)
def test_what_may_have_begun_or_cannot_change_is_not_repeated(
    said: str, fake_ssh: Callable[..., Path]
) -> None:
    """A command is sent twice only where ssh had certainly not logged in."""
    log = fake_ssh(said, 1)
    with pytest.raises(RvstateError):
        Ssh("hpc").run(Script("probe", PROBE))
    assert _calls(log) == 1


def test_a_cut_in_the_middle_of_an_answer_is_told_and_not_repeated(
    fake_ssh: Callable[..., Path],
) -> None:
    """An answer that began and did not end is a cut connection, whatever ssh says beside it."""
    script = Script("probe", PROBE)
    log = fake_ssh(
        "kex_exchange_identification: Connection closed by remote host\n",
        1,
        before=f"\n@@rvstate {script.nonce} begin\nhalf",
    )
    with pytest.raises(UnreachableError, match="cut in the middle"):
        Ssh("hpc").run(script)
    assert _calls(log) == 1


def test_a_script_that_itself_ends_with_255_has_answered(fake_ssh: Callable[..., Path]) -> None:
    """ssh's own status 255 is told from a script's by the frame."""
    script = Script("probe", PROBE)
    frame = f"\n@@rvstate {script.nonce} begin\nkex\n@@rvstate {script.nonce} end 255\n"
    log = fake_ssh(
        "kex_exchange_identification: Connection closed by remote host\n", 1, before=frame
    )
    assert Ssh("hpc").run(script).status == 255
    assert _calls(log) == 1


def test_a_missing_ssh_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without an ssh program nothing is tried."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError, match="ssh is not on this machine"):
        Ssh("hpc").run(Script("probe", PROBE))


def test_no_option_can_be_smuggled_in_by_a_host_name() -> None:
    """What stands for the host comes behind `--`."""
    argv = Ssh("-oProxyCommand=touch x").argv("-T")
    assert argv[-2:] == ["--", "-oProxyCommand=touch x"]


def test_a_scheduled_command_never_prompts() -> None:
    """Every ssh but a person's login runs in BatchMode."""
    assert "BatchMode=yes" in Ssh("hpc").argv("-T")
    assert "BatchMode=no" in Ssh("hpc").argv("-N", batch=False)


def test_the_address_of_the_settings_acts() -> None:
    """`connection.hostname` is the address that ssh connects to."""
    assert "HostName=login.example.edu" in Ssh("hpc", hostname="login.example.edu").argv()


# -- the control socket -------------------------------------------------------------------------


def test_the_socket_is_short_private_and_outside_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a deep home nor an odd TMPDIR reaches the socket, whose path may have 104 bytes."""
    monkeypatch.setenv("HOME", str(tmp_path / ("d" * 200)))
    monkeypatch.setenv("TMPDIR", str(tmp_path / ("t" * 200)))
    folder = control_directory()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    # %C is 40 characters, and ssh adds a dot and 16 for its temporary name
    assert len(str(folder)) + 1 + 40 + 17 < 104


def test_a_socket_directory_of_somebody_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who took the name first cannot have our connection."""
    other = os.getuid() + 7_654_321
    monkeypatch.setattr("rvstate.transport.child.os.getuid", lambda: other)
    path = Path(f"/tmp/rvstate-{other}")
    try:
        with pytest.raises(RefusedError, match="somebody else"):
            control_directory()
    finally:
        path.rmdir()


def test_a_socket_directory_that_others_could_enter_is_closed() -> None:
    """Our own directory is made private again."""
    folder = control_directory()
    folder.chmod(0o755)
    assert stat.S_IMODE(control_directory().stat().st_mode) == 0o700


# -- sessions -----------------------------------------------------------------------------------


def test_sessions_on_one_connection_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ninth session waits, and is told about when none becomes free."""
    pauses: list[float] = []
    monkeypatch.setattr("rvstate.transport.places.time.sleep", pauses.append)
    monkeypatch.setattr("rvstate.transport.places._SLOT_TRIES", 3)
    way = Ssh("a-host-of-this-test")
    with contextlib.ExitStack() as held:
        for _ in range(8):
            held.enter_context(way.session())
        with pytest.raises(UnreachableError, match="8 rvstate commands"), way.session():
            pass
        assert len(pauses) == 3
    with way.session():
        pass


def test_lasting_sessions_leave_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams that last for hours cannot take every session."""
    monkeypatch.setattr("rvstate.transport.places.time.sleep", lambda _: None)
    monkeypatch.setattr("rvstate.transport.places._SLOT_TRIES", 1)
    way = Ssh("another-host-of-this-test")
    with contextlib.ExitStack() as held:
        for _ in range(6):
            held.enter_context(way.session(lasting=True))
        with pytest.raises(UnreachableError), way.session(lasting=True):
            pass
        with way.session():
            pass


# -- streams ------------------------------------------------------------------------------------

BEGUN = b"\n@@rvstate ab12 begin\n\n@@rvstate ab12 group 77\n"
PIECES = st.lists(st.integers(1, 60), max_size=8)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), st.binary(max_size=200), PIECES, st.integers(0, 255))
def test_a_stream_is_the_same_wherever_it_is_cut(
    noise: bytes, body: bytes, sizes: list[int], status: int
) -> None:
    """Noise goes, the body stays byte for byte, however the bytes arrive."""
    whole = noise + b"\n@@rvstate ab12 begin\n\n@@rvstate ab12 group 77\n" + body
    whole += b"@@rvstate ab12 status %d\n" % status
    tap, out, start = Tap("ab12"), b"", 0
    for size in (*sizes, len(whole)):
        out += tap.feed(whole[start : start + size])
        start += size
    out += tap.rest()
    assert out == body
    assert tap.noise == noise
    assert (tap.group, tap.status, tap.begun) == ("77", status, True)


def test_output_that_looks_like_a_marker_is_output() -> None:
    """Only this script's own marker counts."""
    tap = Tap("ab12")
    tap.feed(BEGUN)
    out = tap.feed(b"\n@@rvstate cd34 status 0\n") + tap.rest()
    assert out == b"\n@@rvstate cd34 status 0\n"
    assert tap.status is None


def test_nothing_is_held_back_without_need() -> None:
    """A line is handed on when it comes, not when the next one does."""
    tap = Tap("ab12")
    tap.feed(BEGUN)
    for piece in (b"epoch 1 of 9", b"\n", b"loss 0.1\n", b"done\r"):
        assert tap.feed(piece) == piece


def _stream(*words: str, text: bytes = b"") -> tuple[int, bytes]:
    out: list[bytes] = []
    read, write = os.pipe()
    os.write(write, text)
    os.close(write)
    try:
        status = Local().stream(Script("execute", words), read, out.append)
    finally:
        os.close(read)
    return status, b"".join(out)


def test_a_command_here_streams_with_its_own_input_and_status() -> None:
    """Input, output and status are the command's own."""
    assert _stream("string", "cat; printf x; exit 7", text=b"a\0b\n") == (7, b"a\0b\nx")


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))))
def test_several_words_arrive_as_they_are(words: list[str]) -> None:
    """No word is split, expanded or taken for shell grammar."""
    status, out = _stream("words", "printf", "%s\\0", *words, "end")
    assert status == 0
    assert out.decode().split("\0")[:-1] == [*words, "end"]


def test_a_word_that_looks_like_an_assignment_is_a_command() -> None:
    """`A=1` as a program's name is looked for, not obeyed."""
    assert _stream("words", "A=1")[0] == 127


def test_the_command_keeps_the_users_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our scripts work in the C locale; the user's command does not."""
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    assert _stream("string", "echo $LC_ALL")[1] == b"C.UTF-8\n"
    monkeypatch.delenv("LC_ALL")
    assert _stream("string", "echo ${LC_ALL-unset}")[1] == b"unset\n"


# -- command lines ------------------------------------------------------------------------------

SHELLS = [
    pytest.param(
        name, marks=() if shutil.which(name) else pytest.mark.skip(f"{name} is not installed here")
    )
    for name in ("sh", "bash", "dash", "zsh", "tcsh", "fish")
]
TEXTS = [
    "echo hi",
    "printf '%s\\n' \"$HOME\" 'it''s' `echo b` \\\\ ! # ~",
    "a=1\nif :; then\necho $a\nfi",
]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("text", TEXTS)
def test_an_encoded_command_means_the_same_in_every_login_shell(shell: str, text: str) -> None:
    """Whatever the login shell, the text reaches sh as it was."""
    wanted = subprocess.run(["sh", "-c", text], capture_output=True, check=True).stdout
    line = encoded_command(text)
    assert line.isascii()
    assert "\n" not in line
    found = subprocess.run([shell, "-c", line], capture_output=True, check=True).stdout
    assert found == wanted


def test_a_command_that_no_argument_can_hold_is_refused() -> None:
    """The limit is ours to know, not the kernel's to tell."""
    with pytest.raises(ConfigError, match="too long"):
        encoded_command(os.urandom(200_000).hex())


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_leaves_the_rest_of_standard_input(shell: str) -> None:
    """The script is read to its last byte, and what follows is its own input."""
    text = b"cat\n"
    done = subprocess.run(
        [shell, "-c", transport.remote_command(len(text))],
        input=text + b"rest\n",
        capture_output=True,
        check=True,
    )
    assert done.stdout == b"rest\n"


def test_a_login_shell_that_runs_nothing_is_named() -> None:
    """A shell such as nologin is a sentence that quotes what it said."""

    said = transport.Completed(1, b"This account is currently not available.\n", "")
    with pytest.raises(ProbeError, match="currently not available"):
        Ssh("hpc").finish(Script("probe", PROBE), transport.Finished(said))


def test_the_version_of_ssh_is_known() -> None:
    """`ssh -V` speaks on standard error; it is read all the same."""
    if shutil.which("ssh") is None:
        pytest.skip("no ssh on this machine")
    assert "SSH" in transport.ssh_version()
