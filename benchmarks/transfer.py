"""One push of the project in the current directory, its transfer step timed: prints the seconds."""

from __future__ import annotations

import time
from pathlib import Path

from rvstate.request import Request
from rvstate.workflows.run.order import Order
from rvstate.workflows.run.prepare import prepare
from rvstate.workflows.run.submit import push_only
from rvstate.workflows.session import open_session


def main() -> None:
    """Prepare as `rvstate run` does, then time what brings the code."""
    here = Path.cwd()
    session = open_session(project=here)
    order = Order(("true",), Request(), None, (), here)
    prepared = prepare(session, order, lambda _: None, ahead=True)
    if not prepared.change.changed:
        raise SystemExit("nothing has changed, so nothing would be timed")
    begun = time.perf_counter()
    push_only(session, prepared, lambda _: None)
    print(time.perf_counter() - begun)


if __name__ == "__main__":
    main()
