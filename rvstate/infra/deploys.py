"""The order of operations; what `deploys/*.py` and the engine run."""

from __future__ import annotations

from collections.abc import Mapping

from pyinfra.api import deploy

from rvstate import config as config_door
from rvstate import desired as desired_state
from rvstate.config import Config
from rvstate.infra.operations import account as operations
from rvstate.model.layout import SYMBOLIC, Layout
from rvstate.model.resources import KINDS


@deploy("account")  # type: ignore[untyped-decorator]
def account(config: Config, variables: Mapping[str, str]) -> None:
    """Everything that `rvstate converge` keeps, for the plain `pyinfra` command.

    + config: settings and site, as `rvstate.config.load` reads them
    + variables: the user's variables, as `rvstate.state.State.variables` reads them
    """
    scratch = config_door.scratch_template(config)
    home = config_door.home_template(config)
    symbolic = desired_state.account(config.settings, config.site, SYMBOLIC, variables)
    # who we are there; each operation then reads its own fact
    seen = operations.observe(symbolic, scratch, home)
    wanted = desired_state.account(config.settings, config.site, seen.account, variables)
    layout = Layout(seen.account)
    for kind in KINDS:
        if kind in operations.BY_KIND:
            operations.BY_KIND[kind](name=f"rvstate {kind}", desired=wanted, layout=layout)
