"""A throw-away account in a directory on this machine (site `local`), without ssh."""

hosts = [("@local", {"rvstate_site": "local"})]
