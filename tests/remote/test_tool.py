"""uv on the login node: found, installed, or said why not."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import Account, said

PIP = """#!/bin/sh
# stands in for `python3 -m pip`: --version, or install --target DIRECTORY
[ "$1 $2" = "-m pip" ] || exit 2
case $3 in
    --version) exit {has_pip} ;;
esac
while [ "$1" != --target ]; do shift; done
{install}
mkdir -p "$2/bin"
printf '#!/bin/sh\\necho uv 1\\n' >"$2/bin/uv"
chmod 755 "$2/bin/uv"
"""


def python(account: Account, has_pip: int = 0, install: str = ":") -> None:
    """Put a python3 of our own in front, which also a login shell finds."""
    folder = account.root / "bin"
    folder.mkdir()
    (folder / "python3").write_text(PIP.format(has_pip=has_pip, install=install))
    (folder / "python3").chmod(0o755)
    (account.home / ".bash_profile").write_text(f'echo noise; PATH="{folder}:$PATH"\n')
    account.path = f"{folder}:{account.path}"


def install(account: Account) -> list[str]:
    return said(account.run("tool", account.lock, 0, account.rv / "tools", ""))


def uv(account: Account) -> Path:
    return account.rv / "tools" / "bin" / "uv"


def test_installed(account: Account) -> None:
    """uv comes by the pip of the site's Python, and nothing else stays."""
    python(account)
    assert install(account) == ["done 0 "]
    assert uv(account).is_file()
    assert sorted(p.name for p in (account.rv / "tools").iterdir()) == ["bin"]


def test_installed_already(account: Account) -> None:
    """A uv that runs is left alone."""
    python(account, install="exit 1")
    uv(account).parent.mkdir(parents=True)
    uv(account).write_text("#!/bin/sh\n")
    uv(account).chmod(0o755)
    assert install(account) == ["done 0 "]
    assert uv(account).read_text() == "#!/bin/sh\n"


@pytest.mark.parametrize(
    ("has_pip", "script", "reason"),
    [
        (1, ":", "no Python with pip on the login node to install uv with; set [modules] python"),
        (0, "echo noise; echo no network >&2; exit 1", "pip could not install uv: no network"),
        (0, 'mkdir -p "$2/bin"; echo exit 1 >"$2/bin/uv"; exit 0', "does not run here"),
    ],
)
def test_reasons(account: Account, has_pip: int, script: str, reason: str) -> None:
    """What stood in the way is said in one line, and no half uv is left to be found."""
    python(account, has_pip, script)
    (line,) = install(account)
    assert line.startswith("failed 0 ")
    assert reason in line
    assert not uv(account).exists()


def test_killed_before_each_command(bash_account: Account) -> None:
    """Killed before each single command: never a half uv, and the next run installs it."""
    account = bash_account
    python(account)
    number = 0
    while True:
        number += 7
        words = (account.lock, 0, account.rv / "tools", "")
        killed = account.killed_at_command(number, "tool", *words)
        if not killed:
            break
        if uv(account).exists():
            assert "uv 1" in uv(account).read_text()
        assert install(account) == ["done 0 "]
        uv(account).unlink()
    assert number > 30
