"""The benchmark's account for stock pyinfra, from the environment."""

import os

hosts = [
    (
        "rv-far",
        {
            "ssh_user": os.environ["BENCH_USER"],
            "ssh_config_file": os.environ["BENCH_SSH_CONFIG"],
            "ssh_known_hosts_file": os.environ["BENCH_KNOWN_HOSTS"],
            "home": f"/home/{os.environ['BENCH_USER']}",
            "scratch": f"/scratch/{os.environ['BENCH_USER']}",
        },
    )
]
