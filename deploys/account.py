"""Everything that `rvstate converge` keeps on an account, through the plain pyinfra command.

    pyinfra inventories/rivanna.py deploys/account.py --dry
    pyinfra inventories/rivanna.py deploys/account.py -y

Settings come from `~/.rv/config.toml` as for every command; host data may name another site
(`rvstate_site`) or one of several clusters (`rvstate_cluster`).
"""

from pyinfra import host

from rvstate import config
from rvstate.infra import deploys
from rvstate.state import State

found = config.load(
    options={"connection": {"site": host.data.get("rvstate_site")}},
    cluster=host.data.get("rvstate_cluster"),
)
deploys.account(config=found, variables=State(config.home()).variables())
