"""A run of the project in the current directory: the account, the code, the environment, the job.

    pyinfra @openssh/ALIAS deploys/job.py --data command="python train.py"

Submission is the last operation.
"""

import shlex
from pathlib import Path

from pyinfra import host

from rvstate.infra.facts.account import AccountFact
from rvstate.infra.operations import account, job
from rvstate.model.observed import ObservedState
from rvstate.model.resources import DesiredState
from rvstate.probe import Question
from rvstate.request import Request
from rvstate.workflows.run import scripts
from rvstate.workflows.run.order import Order
from rvstate.workflows.run.prepare import prepare
from rvstate.workflows.session import open_session

session = open_session(project=Path.cwd())


def look(asked: tuple[Question, ...]) -> ObservedState:
    """The look, as a fact."""
    found: ObservedState = host.get_fact(
        AccountFact, scratch=session.scratch, home=session.home, asked=asked
    )
    return found


words = tuple(shlex.split(host.data.get("command") or ""))
if not words:
    raise SystemExit('Say what to run: --data command="python train.py"')
order = Order(words, Request(), host.data.get("name"), (), Path.cwd())
prepared = prepare(session, order, lambda _: None, look=look)

for kind, changes in prepared.plan.by_kind():
    if kind in account.BY_KIND:
        account.BY_KIND[kind](
            name=f"rvstate {kind}",
            desired=DesiredState(tuple(change.resource for change in changes)),
            layout=prepared.layout,
            observed=prepared.observed,
        )
job.workspace(name="rvstate code", script=scripts.push_script(prepared, prepared.known))
job.environment(name="rvstate environment", script=scripts.build_script(prepared))
if not host.data.get("project_only"):
    job.submit(name="rvstate job", script=scripts.submit_script(session, prepared))
