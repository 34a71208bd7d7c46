"""The account that `~/.rv/config.toml` names, over OpenSSH.

One connection for the day, with the user's own ssh config.  `PYINFRA_CONNECTOR=ssh` goes through
pyinfra's stock connector (paramiko) instead: a login each time, and no second factor.
"""

import os

from rvstate import config

connection = config.load().settings.connection
connector = os.environ.get("PYINFRA_CONNECTOR", "openssh")
keys = {"openssh": ("openssh_user", "openssh_config"), "ssh": ("ssh_user", "ssh_config_file")}
user_key, config_key = keys[connector]
data = {user_key: connection.user, config_key: connection.ssh_config}

hosts = [(f"@{connector}/{connection.host}", {k: v for k, v in data.items() if v})]
