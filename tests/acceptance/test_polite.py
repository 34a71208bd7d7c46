"""How much a follower asks of the controller, by the controller's own count."""

from __future__ import annotations

import math
import re
import time
from pathlib import Path
from typing import Any

import pytest

from rvstate.workflows.pace import MOST_A_MINUTE
from tests.runkit import Laptop, repository

pytestmark = pytest.mark.cluster
CHATTY = "import time\nfor n in range(40):\n    print(n, flush=True)\n    time.sleep(0.3)\n"


def asked(cluster: Any, user: str) -> int:
    """The requests of one user since the last reset, as sdiag counts them."""
    text = cluster.exec("sdiag").stdout.split("Remote Procedure Call statistics by user")[1]
    found = re.search(rf"^\s*{user}\s*\(\s*\d+\)\s+count:(\d+)", text, re.M)
    return int(found.group(1)) if found else 0


def test_following_asks_the_controller_rarely(cluster: Any, tmp_path: Path) -> None:
    """A job that writes all the time is followed to its end within the stated number."""
    cluster.reset()
    here = Laptop(
        tmp_path / "laptop",
        '[connection]\nhost = "rv-login"\nuser = "abc1de"\nsite = "uva"\n'
        f'ssh_config = "{cluster.ssh_config}"\n',
    )
    app = repository(tmp_path / "work/chatty", {"train.py": CHATTY})
    job = here.submit("train.py", cwd=app)["job_id"]
    cluster.exec("sdiag", "--reset")
    begun = time.monotonic()
    done = here.run("logs", "-f", job)
    minutes = math.ceil((time.monotonic() - begun) / 60)
    assert done.stdout.split() == [str(n) for n in range(40)]
    count = asked(cluster, "abc1de")
    # `logs` itself looks the run up once
    assert 3 <= count <= MOST_A_MINUTE * minutes + 1, cluster.exec("sdiag").stdout
