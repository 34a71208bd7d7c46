"""What ssh says when it fails, and what that means."""

from __future__ import annotations

import re

from rvstate.errors import (
    ConfigError,
    NotAuthenticatedError,
    RefusedError,
    RvstateError,
    UnreachableError,
)

# The first that fits counts.  Texts of OpenSSH 7.4 to 9.9, and of the macOS resolver and kernel.
_EXPLANATIONS: tuple[tuple[str, type[RvstateError], str, str], ...] = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|[Hh]ost key for \S+ has changed",
        RefusedError,
        "The host key of {host} has changed: the site renewed it, or somebody is in between.",
        "Compare the new fingerprint with the site's web page; only then `ssh-keygen -R HOSTNAME`.",
    ),
    (
        r"REVOKED HOST KEY DETECTED|Host key \S+ revoked",
        RefusedError,
        "The host key of {host} is marked as revoked.",
        "Ask the site which key is right before you connect again.",
    ),
    (
        r"Host key verification failed|No .* host key is known",
        NotAuthenticatedError,
        "The host key of {host} is not known on this machine yet.",
        "Run `rvstate login`, compare the fingerprint with the site's page, and accept it.",
    ),
    (
        r"Bad configuration option|terminating, \d+ bad configuration|Can't open user config file"
        r"|Bad owner or permissions on|line \d+: .*(?:[Mm]issing argument|[Uu]nsupported option)",
        ConfigError,
        "ssh cannot use its configuration for {host}.",
        "Run `ssh -G {host}` to see what it complains about, and mend that file.",
    ),
    (
        r"Temporary failure in name resolution",
        UnreachableError,
        "No name can be resolved, so {host} cannot be found.",
        "Check that this machine is online, and the site's VPN.",
    ),
    (
        r"Could not resolve hostname|Name or service not known|nodename nor servname",
        UnreachableError,
        "The name {host} cannot be resolved.",
        "Check the name in `~/.rv/config.toml` and ssh config, the network, and the site's VPN.",
    ),
    (
        r"stdio forwarding failed|channel \d+: open failed: (?:connect failed|administratively)",
        UnreachableError,
        "The jump host answers, but cannot reach {host}.",
        "Check ProxyJump and HostName in your ssh config, and the site's status page.",
    ),
    (
        r"Connection refused",
        UnreachableError,
        "{host} refuses connections.",
        "It may be down, or you are outside the site's network: check VPN and status page.",
    ),
    (
        r"timed out|No route to host|(?:Network|Host) is (?:unreachable|down)|not responding"
        r"|Can't assign requested address",
        UnreachableError,
        "{host} does not answer.",
        "Check the network and the site's VPN.",
    ),
    (
        r"UNPROTECTED PRIVATE KEY FILE|bad permissions",
        NotAuthenticatedError,
        "ssh does not use your key for {host}, because others may read its file.",
        "Run `chmod 600` on the private key that ssh names, then try again.",
    ),
    (
        r"account (?:has|is) (?:expired|locked)|[Pp]assword has expired|password change required",
        NotAuthenticatedError,
        "Your account or password on {host} has expired.",
        "Renew it as the site describes; `ssh {host}` shows what it asks for.",
    ),
    (
        r"Permission denied \(|Too many authentication failures|No more authentication methods"
        r"|no more authentication methods|agent refused operation",
        NotAuthenticatedError,
        "{host} wants a login that needs you (password, key or second factor).",
        "Run `rvstate login`, or `ssh {host}` to see what it asks for.",
    ),
    (
        r"no matching (?:host key type|key exchange method|cipher|mac) found",
        UnreachableError,
        "This machine's ssh and {host} have no common encryption method.",
        "One of the two is very old: ask the site, or update OpenSSH here.",
    ),
    (
        r"mux_client_request_session|Session open refused",
        UnreachableError,
        "{host} takes no further session on this connection.",
        "Wait for a running rvstate command to end, then try again.",
    ),
    (
        r"^(?:kex|ssh)_exchange_identification:|Not allowed at this time",
        UnreachableError,
        "{host} turns away new logins just now.",
        "It limits logins at once; wait a minute, then try again.",
    ),
    (
        r"Broken pipe|closed by remote host|Connection closed|[Cc]onnection to \S+ closed"
        r"|Connection reset|disconnect",
        UnreachableError,
        "The connection to {host} was cut.",
        "Run the command again: every step can be repeated.",
    ),
)


def explain(host: str, errors: str) -> RvstateError | None:
    """The error that ssh's standard error tells of, with its remedy; None where it tells none."""
    for pattern, kind, message, remedy in _EXPLANATIONS:
        if re.search(pattern, errors, re.M):
            return kind(message.format(host=host), remedy.format(host=host))
    return None
