"""How the tests of remote scripts run them: as they travel, in a throw-away account."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from rvstate.script import Answer, Script, read_answer

# Every program by which a script changes files; each is wrapped for `Account.killed_at`.
CHANGING = (
    *("cat", "chmod", "cp", "find", "ln", "mkdir", "mv", "rm", "rmdir", "rsync", "touch"),
    *("base64", "tar", "sed", "tee"),
)

# Ends the whole process group when the N-th program starts, or has ended.
_SHIM = """#!/bin/sh
count={directory}/count
{{ read -r n <"$count"; }} 2>/dev/null || n=0
n=$((n + 1))
echo "$n" >"$count"
if [ "$n" = "{number}" ] && [ "{when}" = before ]; then kill -s KILL -- "-$RV_GROUP"; fi
{program} "$@"
status=$?
if [ "$n" = "{number}" ]; then kill -s KILL -- "-$RV_GROUP"; fi
exit "$status"
"""

# bash runs the trap before every command, in functions, subshells and substitutions too.
_TRAP = """
set -T
rv_test_count={count}
rv_test_number={number}
rv_test_kill() {{
    {{ read -r rv_test_n <"$rv_test_count"; }} 2>/dev/null || rv_test_n=0
    rv_test_n=$((rv_test_n + 1))
    echo "$rv_test_n" >"$rv_test_count"
    if [ "$rv_test_n" = "$rv_test_number" ]; then kill -s KILL -- "-$RV_GROUP"; fi
}}
trap rv_test_kill DEBUG
"""

# Keeps the state of the disk before every command: what a kill -9 there would leave behind.
_WATCH = """
set -T
rv_test_count=0
rv_test_keep() {{
    rv_test_count=$((rv_test_count + 1))
    mkdir -p {states}/"$BASHPID-$rv_test_count" &&
        cp -a {home} {scratch} {states}/"$BASHPID-$rv_test_count" 2>/dev/null
}}
trap rv_test_keep DEBUG
"""


@dataclass
class Account:
    """A throw-away account on this machine: its home, its scratch, and a shell to run scripts."""

    root: Path
    shell: str = "sh"
    path: str = field(default_factory=lambda: os.environ["PATH"])
    user: int | None = None

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def scratch(self) -> Path:
        return self.root / "scratch"

    @property
    def rv(self) -> Path:
        return self.scratch / ".rv"

    @property
    def lock(self) -> str:
        return str(self.rv / "lock")

    def env(self, **more: str) -> dict[str, str]:
        return {"PATH": self.path, "HOME": str(self.home), "USER": "someone", **more}

    def start(self, script: Script, before: str = "", **env: str) -> subprocess.Popen[bytes]:
        """Start a script as the transports do, in a process group of its own."""
        text = (before + script.text).encode("utf-8", "surrogateescape")
        # the group's number, for a script that is to kill itself
        command = f'RV_GROUP=$$ && export RV_GROUP && eval "$(head -c {len(text)})"'
        process = subprocess.Popen(
            [self.shell, "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.env(**env),
            cwd=self.root,
            start_new_session=True,
            user=self.user,
            group=self.user,
            extra_groups=None if self.user is None else [],
        )
        assert process.stdin is not None
        process.stdin.write(text + script.data)
        process.stdin.close()
        process.stdin = None
        return process

    def finish(self, process: subprocess.Popen[bytes], nonce: str) -> Answer:
        output, errors = process.communicate(timeout=120)
        answer = read_answer(nonce, output, errors.decode("utf-8", "replace"))
        assert answer is not None, (output, errors)
        return answer

    def run(self, name: str, *args: object, payload: bytes = b"", **env: str) -> Answer:
        """Run a script to its end."""
        script = Script(name, tuple(map(str, args)), payload)
        return self.finish(self.start(script, **env), script.nonce)

    def killed(self, before: str, name: str, *args: object, **env: str) -> bool:
        """Run a script whose text has something in front; whether it was killed."""
        process = self.start(Script(name, tuple(map(str, args))), before, **env)
        process.communicate(timeout=120)
        if process.returncode != -signal.SIGKILL:
            return False
        # what was left in its group (the lock's keeper) would live on for a moment
        with_group = ["kill", "-9", "--", f"-{process.pid}"]
        subprocess.run(with_group, check=False, stderr=subprocess.DEVNULL)
        return True

    def killed_at_command(self, number: int, name: str, *args: object) -> bool:
        """Run a script in bash, killed with its children before its `number`-th command."""
        count = self.root / "count"
        count.unlink(missing_ok=True)
        return self.killed(_TRAP.format(count=count, number=number), name, *args)

    def killed_at_program(self, number: int, when: str, name: str, *args: object) -> bool:
        """Run a script in any shell, killed before or after the `number`-th program it starts."""
        shims = self.root / "shims"
        shutil.rmtree(shims, ignore_errors=True)
        shims.mkdir()
        for program in CHANGING:
            real = shutil.which(program, path=self.path)
            if real is None:
                continue
            text = _SHIM.format(directory=shims, number=number, when=when, program=real)
            (shims / program).write_text(text)
            (shims / program).chmod(0o755)
        return self.killed("", name, *args, PATH=f"{shims}:{self.path}")

    def states(self, name: str, *args: object) -> tuple[int, list[Path]]:
        """The disk before every command of a script in bash: how many, and each different one."""
        folder = self.root / "states"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        before = _WATCH.format(states=folder, home=self.home, scratch=self.scratch)
        process = self.start(Script(name, tuple(map(str, args))), before)
        process.communicate(timeout=120)
        assert process.returncode == 0
        found: dict[str, Path] = {}
        for state in folder.iterdir():
            tree = self.tree(state)
            # dates are those of the copy
            found.setdefault(repr(sorted((k, v[:3], v[4]) for k, v in tree.items())), state)
        return len(list(folder.iterdir())), list(found.values())

    def restore(self, state: Path) -> None:
        """Put a state of the disk in place."""
        for top in (self.home, self.scratch):
            _clear(top)
            if (state / top.name).exists():
                (state / top.name).rename(top)

    def tree(self, top: Path | None = None) -> dict[str, tuple[object, ...]]:
        """Everything below a directory: kind, mode, times, contents or target, by name."""
        found: dict[str, tuple[object, ...]] = {}
        base = os.fsencode(top or self.root)
        for directory, names, files in os.walk(base):
            for name in (b".", *names, *files):
                path = os.path.join(directory, name)
                status = os.lstat(path)
                kind = stat.S_IFMT(status.st_mode)
                content: object = None
                if stat.S_ISLNK(status.st_mode):
                    content = os.readlink(path)
                elif stat.S_ISREG(status.st_mode):
                    content = Path(os.fsdecode(path)).read_bytes()
                key = os.fsdecode(os.path.relpath(path, base))
                mode = stat.S_IMODE(status.st_mode)
                found[key] = (kind, mode, status.st_uid, status.st_mtime_ns, content)
        return found


def _clear(top: Path) -> None:
    subprocess.run(["chmod", "-R", "u+rwx", top], check=False, stderr=subprocess.DEVNULL)
    shutil.rmtree(top, ignore_errors=True)


def said(answer: Answer) -> list[str]:
    """What a script said of each change."""
    return answer.body.decode("utf-8", "replace").strip("\n").split("\n")
