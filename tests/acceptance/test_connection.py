"""The connection to a real sshd: shells, noise, second factor, jump host, and every way to fail."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rvstate.script import Script
from rvstate.transport import Ssh

pytestmark = pytest.mark.cluster

Done = subprocess.CompletedProcess[str]


class Laptop:
    """A machine with rvstate on it, pointed at one account of the cluster."""

    def __init__(self, root: Path, ssh_config: Path) -> None:
        self.root = root
        self.ssh_config = ssh_config
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("RVSTATE_")}
        self.env |= {"RVSTATE_HOME": str(root / "rv"), "HOME": str(root)}
        # nothing in the background
        self.env["RVSTATE_SCRATCH_KEEPALIVE_SCHEDULE"] = "none"

    def settings(
        self, host: str = "rv-login", user: str = "abc1de", ssh_config: Path | None = None
    ) -> None:
        """Write the config file."""
        (self.root / "rv").mkdir(mode=0o700, exist_ok=True)
        (self.root / "rv" / "config.toml").write_text(
            f'[connection]\nhost = "{host}"\nuser = "{user}"\nsite = "uva"\n'
            f'ssh_config = "{ssh_config or self.ssh_config}"\n'
        )

    def argv(self, *args: str) -> list[str]:
        """The command line of one command."""
        return [sys.executable, "-m", "rvstate", *args]

    def run(self, *args: str, text: str = "", **env: str) -> Done:
        """Run one command without a terminal."""
        return subprocess.run(
            self.argv(*args),
            input=text,
            capture_output=True,
            text=True,
            env=self.env | env,
            timeout=120,
        )


@pytest.fixture
def laptop(cluster: Any, tmp_path: Path) -> Iterator[Laptop]:
    """A fresh laptop, logged out of everything before and after."""
    found = Laptop(tmp_path, cluster.ssh_config)
    _log_out(found)
    yield found
    _log_out(found)
    cluster.latency("heal")


def _log_out(laptop: Laptop) -> None:
    for host in ("rv-login", "rv-duo", "rv-noisy", "rv-jump", "rv-far", "rv-far-duo"):
        Ssh(host, "abc1de", str(laptop.ssh_config)).disconnect()


def _sentence(done: Done, status: int, word: str) -> None:
    """The end was this status, with one sentence that holds the word, and a remedy."""
    assert done.returncode == status, done.stdout + done.stderr
    said, remedy = done.stderr.strip().splitlines()[-2:]
    assert said.startswith("rvstate: ")
    assert word in said
    assert remedy.startswith("  → ")
    assert "Traceback" not in done.stderr


# -- shells and noise ---------------------------------------------------------------------------


@pytest.mark.parametrize("user", ["abc1de", "noi5ey", "csh7sh", "fsh8fi", "zsh7sh", "frc4ed"])
def test_every_login_shell_runs_our_commands(laptop: Laptop, user: str) -> None:
    """bash, a noisy one, tcsh, fish, zsh and a forced command all give the same clean answers."""
    laptop.settings(user=user)
    done = laptop.run("exec", "cat; echo $0; exit 4", text="in\n")
    assert (done.returncode, done.stdout) == (4, "in\nbash\n")
    words = laptop.run("exec", "printf", "%s|", "a  b", "$HOME", "'", "!x", "é")
    assert words.stdout == "a  b|$HOME|'|!x|é|"
    look = laptop.run("converge", "--check", "--json")
    assert look.returncode == 0, look.stderr
    assert json.loads(look.stdout)["hosts"][0]["remote_commands"] == 1


def test_a_banner_is_no_output(laptop: Laptop) -> None:
    """What sshd shows before a login is in no stream of ours."""
    laptop.settings(host="rv-noisy")
    done = laptop.run("exec", "echo", "x")
    assert (done.stdout, done.stderr) == ("x\n", "")
    assert json.loads(laptop.run("doctor", "--json").stdout)["healthy"] is True


def test_an_account_without_a_shell_is_told(laptop: Laptop) -> None:
    """nologin is one sentence that quotes it, not a riddle."""
    laptop.settings(user="nol0gn")
    _sentence(laptop.run("exec", "true"), 1, "not available")
    _sentence(laptop.run("converge", "--check"), 1, "not available")


def test_doctor_sees_the_noise_and_a_missing_association(laptop: Laptop) -> None:
    """Noise and an account without Slurm are named with what to do."""
    laptop.settings(user="noi5ey")
    checks = json.loads(laptop.run("doctor", "--json").stdout)["checks"]
    noise = next(c for c in checks if c["name"] == "start-up files")
    assert noise["status"] == "warn"
    assert "reminder" in noise["text"]
    laptop.settings(user="out5id")
    checks = json.loads(laptop.run("doctor", "--json").stdout)["checks"]
    assert next(c for c in checks if c["name"] == "allocation")["status"] == "warn"


# -- streams ------------------------------------------------------------------------------------


def test_bytes_go_through_unchanged(laptop: Laptop) -> None:
    """Anything can be piped there and back."""
    laptop.settings()
    data = bytes(range(256)) * 4000
    argv = laptop.argv("exec", "cat")
    done = subprocess.run(argv, input=data, capture_output=True, env=laptop.env, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == data


def test_output_comes_while_the_command_runs(laptop: Laptop) -> None:
    """A line is here before the command has ended."""
    laptop.settings()
    argv = laptop.argv("exec", "echo one; read line; echo got $line")
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=laptop.env, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "one\n"
        process.stdin.write("two\n")
        process.stdin.flush()
        assert process.stdout.readline() == "got two\n"


def test_ctrl_c_ends_the_command_over_there(laptop: Laptop, cluster: Any) -> None:
    """Nothing of it goes on running on the login node, also what it started."""
    laptop.settings()
    argv = laptop.argv("exec", "echo here; sleep 98765 & sleep 98765; wait")
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=laptop.env)
    assert process.stdout is not None
    assert process.stdout.readline() == b"here\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=180)
    assert process.returncode == 130
    assert b"Traceback" not in errors
    left = cluster.exec("pgrep", "-u", "abc1de", "-f", "sleep 98765", check=False)
    assert left.stdout == ""


def test_a_terminal_is_given_when_asked_for(laptop: Laptop) -> None:
    """With -t the program has a terminal, and its exit code is kept."""
    laptop.settings()
    status, seen = _in_terminal(laptop, ["exec", "-t", "test -t 0 && echo yes-a-tty; exit 5"], {})
    assert status == 5
    assert b"yes-a-tty" in seen


# -- second factor ------------------------------------------------------------------------------


def _in_terminal(
    laptop: Laptop, args: list[str], answers: dict[bytes, bytes], *, again: bytes = b""
) -> tuple[int, bytes]:
    """Run a command in a terminal of its own and answer every prompt, as often as it comes.

    `again` is typed whenever nothing has come for two seconds: Python loses a Ctrl-C that arrives
    in the instant before it starts to wait for a line.
    """
    pid, master = pty.fork()
    if pid == 0:
        os.execve(sys.executable, laptop.argv(*args), laptop.env)
    seen, answered, idle = b"", 0, 0
    try:
        while idle < 30:
            if not select.select([master], [], [], 2)[0]:
                idle += 1
                os.write(master, again)
                continue
            try:
                chunk = os.read(master, 1024)
            except OSError:
                break
            idle, seen = 0, seen + chunk
            for prompt, answer in answers.items():
                if prompt in seen[answered:]:
                    answered = len(seen)
                    os.write(master, answer)
        else:
            os.kill(pid, signal.SIGKILL)
    finally:
        os.close(master)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), seen


def test_a_second_factor_is_asked_for_once(laptop: Laptop, cluster: Any) -> None:
    """Silent refusal before, one login by a person, then every command without a word."""
    laptop.settings(host="rv-duo")
    _sentence(laptop.run("converge", "--check"), 75, "needs you")
    _sentence(laptop.run("exec", "true"), 75, "needs you")
    assert laptop.run("login", "--check").returncode == 75
    mark = cluster.logins()["mark"]
    status, seen = _in_terminal(laptop, ["login"], {b"Passcode": b"123456\n"})
    assert status == 0, seen
    assert laptop.run("login", "--check").returncode == 0
    assert laptop.run("converge", "--check").returncode == 0
    assert laptop.run("exec", "echo", "x").stdout == "x\n"
    assert laptop.run("login").stdout == "Already logged in to abc1de@rv-duo.\n"
    assert cluster.logins(mark)["by_sshd"]["duo"]["accepted"] == 1
    assert laptop.run("login", "--logout").returncode == 0
    assert laptop.run("login", "--check").returncode == 75


def test_a_command_in_a_terminal_logs_in_by_itself(laptop: Laptop, cluster: Any) -> None:
    """A person is asked where a command needs it, once, and the command then runs."""
    laptop.settings(host="rv-duo")
    mark = cluster.logins()["mark"]
    status, seen = _in_terminal(laptop, ["converge", "--check"], {b"Passcode": b"123456\n"})
    assert status == 0, seen
    assert b"Logging in to rv-duo (once for today)." in seen
    assert b"Plan:" in seen
    assert cluster.logins(mark)["by_sshd"]["duo"]["accepted"] == 1


def test_a_login_that_is_refused_is_told(laptop: Laptop) -> None:
    """Wrong passcodes end with 75, one sentence, and no connection."""
    laptop.settings(host="rv-duo")
    status, seen = _in_terminal(laptop, ["login"], {b"Passcode": b"000000\n"})
    assert status == 75, seen
    assert b"did not succeed" in seen
    assert laptop.run("login", "--check").returncode == 75


# -- the way there ------------------------------------------------------------------------------


def test_a_jump_host_of_the_ssh_configuration_is_used(laptop: Laptop, cluster: Any) -> None:
    """ProxyJump works, and the second command jumps no more."""
    laptop.settings(host="rv-jump")
    mark = cluster.logins()["mark"]
    assert laptop.run("exec", "echo", "x").stdout == "x\n"
    assert laptop.run("exec", "echo", "y").stdout == "y\n"
    logins = cluster.logins(mark)["by_sshd"]
    assert (logins["bastion"]["accepted"], logins["login"]["accepted"]) == (1, 1)


def test_a_jump_host_that_reaches_nothing_is_told_from_the_goal(
    laptop: Laptop, tmp_path: Path
) -> None:
    """The sentence says which of the two is the trouble, also where ssh itself does not."""
    config = tmp_path / "ssh"
    text = f"Host rv-jump\n    Port 1\n{laptop.ssh_config.read_text()}"
    config.write_text(text)
    laptop.settings(host="rv-jump", ssh_config=config)
    _sentence(laptop.run("exec", "true"), 1, "jump host")


def test_one_login_serves_a_whole_converge(laptop: Laptop, cluster: Any) -> None:
    """However many commands a converge takes, sshd sees one login."""
    cluster.reset()
    laptop.settings()
    mark = cluster.logins()["mark"]
    done = laptop.run("converge", "-y", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["hosts"][0]["verified"] is True
    assert cluster.logins(mark)["accepted"] == {"abc1de": 1}


def test_an_odd_home_and_tmpdir_do_not_matter(laptop: Laptop, tmp_path: Path) -> None:
    """The socket is in neither, so a full, deep or missing one is no trouble."""
    laptop.settings()
    deep = tmp_path / ("d" * 120) / ("e" * 120)
    deep.mkdir(parents=True)
    for folder in (str(deep), str(tmp_path / "missing")):
        done = laptop.run("exec", "echo", "x", HOME=folder, TMPDIR=folder)
        assert (done.stdout, done.returncode) == ("x\n", 0), done.stderr


def test_never_more_than_ten_sessions_on_a_connection(laptop: Laptop, cluster: Any) -> None:
    """Twenty commands at once share one login: none opens a connection of its own."""
    ways = [Ssh("rv-login", "abc1de", str(laptop.ssh_config)) for _ in range(20)]
    mark = cluster.logins()["mark"]
    ways[0].open()
    statuses: list[int] = []

    def work(way: Ssh) -> None:
        statuses.append(way.execute("sleep 0.5").status)

    _at_once([lambda way=way: work(way) for way in ways])
    assert statuses == [0] * 20
    assert cluster.logins(mark)["accepted"] == {"abc1de": 1}


def test_many_logins_at_once_all_arrive(laptop: Laptop, cluster: Any) -> None:
    """What sshd drops of twenty-four logins at once (MaxStartups) is tried again."""
    users = [*(f"u{n:02}aa" for n in range(1, 21)), "abc1de", "xyz9uv", "csh7sh", "zsh7sh"]
    ways = [Ssh("rv-login", user, str(laptop.ssh_config)) for user in users]
    for way in ways:
        way.disconnect()
    mark = cluster.logins()["mark"]
    found: dict[str, str] = {}

    def work(way: Ssh) -> None:
        answer = way.run(Script("probe", ("/scratch/{user}", "")))
        found[str(way.user)] = re.split(r"[\0\n ]", answer.first("account").decode())[1]

    try:
        _at_once([lambda way=way: work(way) for way in ways])
        assert found == {user: user for user in users}
        assert cluster.logins(mark)["accepted"] == dict.fromkeys(users, 1)
    finally:
        for way in ways:
            way.disconnect()


def _at_once(jobs: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# -- every way to fail --------------------------------------------------------------------------


def _with_known_hosts(laptop: Laptop, path: Path, text: str) -> Path:
    known = path / "known"
    known.write_text(text)
    config = path / "ssh"
    # ssh takes the first value it meets
    head = f"Host *\n    UserKnownHostsFile {known}\n    StrictHostKeyChecking ask\n"
    config.write_text(head + laptop.ssh_config.read_text())
    return config


def test_a_changed_host_key_stops_everything(laptop: Laptop, tmp_path: Path) -> None:
    """A hard stop with the remedy, in every command, before anything is sent."""
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    public = " ".join(Path(f"{key}.pub").read_text().split()[:2])
    state = laptop.ssh_config.parent / "known_hosts"
    names = dict.fromkeys(line.split()[0] for line in state.read_text().splitlines())
    wrong = "".join(f"{name} {public}\n" for name in names)
    laptop.settings(ssh_config=_with_known_hosts(laptop, tmp_path, wrong))
    for args in (("exec", "true"), ("converge", "--check"), ("login",)):
        done = laptop.run(*args)
        _sentence(done, 3, "has changed")
        assert "ssh-keygen -R" in done.stderr
    status, seen = _in_terminal(laptop, ["login"], {b"(yes/no": b"yes\n"})
    assert status == 3, seen
    assert Path(tmp_path / "known").read_text() == wrong


def test_an_unknown_host_key_is_a_persons_to_accept(laptop: Laptop, tmp_path: Path) -> None:
    """Without a person 75; in a terminal ssh shows the fingerprint, and then it is known."""
    laptop.settings(ssh_config=_with_known_hosts(laptop, tmp_path, ""))
    _sentence(laptop.run("exec", "true"), 75, "not known")
    assert (tmp_path / "known").read_text() == ""
    status, seen = _in_terminal(laptop, ["login"], {b"(yes/no": b"yes\n"})
    assert status == 0, seen
    assert b"fingerprint" in seen
    assert laptop.run("exec", "echo", "x").stdout == "x\n"


def test_a_name_that_nobody_knows(laptop: Laptop) -> None:
    """DNS gone or a slip in the name: one sentence."""
    laptop.settings(host="login.invalid")
    _sentence(laptop.run("exec", "true"), 1, "cannot be")
    _sentence(laptop.run("converge", "--check"), 1, "cannot be")


def test_a_host_that_refuses(laptop: Laptop, cluster: Any) -> None:
    """A host that is up without a login service."""
    cluster.latency("refuse")
    laptop.settings(host="rv-far")
    _sentence(laptop.run("exec", "true"), 1, "refuses connections")
    _sentence(laptop.run("converge", "--check"), 1, "refuses connections")


def test_a_host_that_swallows_everything(laptop: Laptop, cluster: Any) -> None:
    """A firewall or a VPN that is off: it ends by itself, with one sentence."""
    cluster.latency("blackhole")
    laptop.settings(host="rv-far")
    _sentence(laptop.run("converge", "--check"), 1, "does not answer")


def test_a_connection_cut_in_the_middle(laptop: Laptop, cluster: Any) -> None:
    """The output so far is there, the sentence says that it was cut, and the next one works."""
    laptop.settings(host="rv-far")
    argv = laptop.argv("exec", "echo begun; sleep 600")
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=laptop.env)
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    cluster.latency("drop")
    out, errors = process.communicate(timeout=180)
    done = subprocess.CompletedProcess(argv, process.returncode, out.decode(), errors.decode())
    _sentence(done, 1, "cut in the middle")
    cluster.exec("pkill", "-u", "abc1de", "-f", "sleep 600", check=False)
    assert laptop.run("exec", "echo", "x").stdout == "x\n"


def test_a_look_cut_in_the_middle(laptop: Laptop, cluster: Any) -> None:
    """A framed answer that ends early is told, and not taken for an answer."""
    way = Ssh("rv-far", "abc1de", str(laptop.ssh_config))
    script = Script("execute", ("string", "echo begun; sleep 600"))
    running = way.begin(script)
    for _ in range(200):
        if cluster.exec("pgrep", "-u", "abc1de", "-f", "sleep 600", check=False).stdout:
            break
        time.sleep(0.05)
    cluster.latency("drop")
    with pytest.raises(Exception, match="cut in the middle"):
        way.finish(script, running)
    cluster.exec("pkill", "-u", "abc1de", "-f", "sleep 600", check=False)


def test_a_refused_key_is_told(laptop: Laptop, tmp_path: Path) -> None:
    """A key that the server does not take: 75 and the way on."""
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    text = laptop.ssh_config.read_text()
    old = next(line for line in text.splitlines() if "IdentityFile" in line)
    config = tmp_path / "ssh"
    config.write_text(text.replace(old, f"    IdentityFile {key}"))
    laptop.settings(ssh_config=config)
    _sentence(laptop.run("converge", "--check"), 75, "needs you")


def test_a_broken_ssh_configuration_is_told(laptop: Laptop, tmp_path: Path) -> None:
    """A file that ssh cannot read is the user's to mend."""
    config = tmp_path / "ssh"
    config.write_text("Nonsense yes\n")
    laptop.settings(ssh_config=config)
    _sentence(laptop.run("converge", "--check"), 64, "configuration")


def test_the_wizard_asks_logs_in_and_writes_once(laptop: Laptop) -> None:
    """In a terminal `init` asks what no option says, second factor included, and then the user."""
    options = ["init", "--ssh-config", str(laptop.ssh_config)]
    answers = {
        b"Login node (ssh alias or address)": b"rv-duo\n",
        b"user name there": b"\n",
        b"Passcode": b"123456\n",
        b"Allocation that pays": b"othergroup\n",
        b"Keep these as presets": b"y\n",
        b"Write this to": b"y\n",
    }
    status, seen = _in_terminal(laptop, options, answers)
    assert status == 0, seen
    assert b"rv-bastion" in seen  # what ssh knows is suggested
    assert b"rvstate converge" in seen
    found = tomllib.loads((laptop.root / "rv" / "config.toml").read_text())
    assert found["connection"]["host"] == "rv-duo"
    assert found["defaults"]["account"] == "othergroup"
    assert laptop.run("login", "--check").returncode == 0
    before = (laptop.root / "rv" / "config.toml").read_bytes()
    status, seen = _in_terminal(laptop, ["init"], dict.fromkeys(answers, b"\n"))
    assert status == 0, seen
    assert b"Write this to" not in seen
    assert (laptop.root / "rv" / "config.toml").read_bytes() == before
    # who has none of them has declined them once
    bare = before.partition(b"[presets")[0]
    (laptop.root / "rv" / "config.toml").write_bytes(bare)
    status, seen = _in_terminal(laptop, ["init"], dict.fromkeys(answers, b"\n"))
    assert status == 0, seen
    assert b"Keep these" not in seen
    assert b"rvstate init --presets" in seen
    assert (laptop.root / "rv" / "config.toml").read_bytes() == bare


def test_the_wizard_can_be_left(laptop: Laptop) -> None:
    """Saying no at the end, or Ctrl-C, leaves nothing behind."""
    options = ["init", "--host", "rv-login", "--ssh-config", str(laptop.ssh_config)]
    answers = {
        b"user name there": b"\n",
        b"Allocation that pays": b"\n",
        b"Keep these as presets": b"n\n",
        b"Write this to": b"n\n",
    }
    status, seen = _in_terminal(laptop, options, answers)
    assert status == 130, seen
    assert b"Nothing was written." in seen
    status, seen = _in_terminal(laptop, options, {b"user name there": b"\x03"}, again=b"\x03")
    assert status == 130, seen
    assert not (laptop.root / "rv" / "config.toml").exists()
