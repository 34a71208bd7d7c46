"""DVC's configuration: which remote data goes to (`.dvc/config` and `.dvc/config.local`)."""

from __future__ import annotations

import configparser
import posixpath
from collections.abc import Iterable
from dataclasses import dataclass

# What logs in, as `dvc remote modify` names it; it is kept out of git in config.local.
_SECRETS = frozenset(
    {
        *("access_key_id", "secret_access_key", "session_token", "password", "token", "sas_token"),
        *("connection_string", "account_key", "client_secret", "credentialpath", "keyfile"),
        *("oss_key_id", "oss_key_secret", "gdrive_client_secret"),
    }
)


@dataclass(frozen=True, slots=True)
class DataRemote:
    """The remote that DVC uses where none is named.

    Args:
        name: Its name.
        scheme: `s3`, `ssh`, ...; `local` for a directory.
        url: As it is configured, with a directory from / on.
        secrets: Names of keys that log in and that stay on this machine.
    """

    name: str
    scheme: str
    url: str
    secrets: tuple[str, ...] = ()


def data_remote(texts: Iterable[str], directory: str) -> DataRemote | None:
    """The default remote as jobs have it, or None where there is none.

    They have the first file only; what the second says of the same remote is about this machine.

    Args:
        texts: The files from the weakest on: `.dvc/config`, `.dvc/config.local`.
        directory: The directory `.dvc` on this machine, which directories are relative to.
    """
    parser = configparser.ConfigParser(interpolation=None, strict=False, allow_no_value=True)
    shared = ("", "")
    for number, text in enumerate(texts):
        try:
            parser.read_string(text)
            if number == 0:
                shared = _default(parser)
        except configparser.Error:
            # DVC itself says so to its user; nothing of it is believed here
            return None
    name, url = shared if all(shared) else _default(parser)
    section = _section(parser, name)
    if not name or section is None:
        return None
    secrets = tuple(key for key in parser[section] if key in _SECRETS)
    scheme, found, _ = url.partition("://")
    if not url.isprintable():
        return None
    if not found:
        path = posixpath.normpath(posixpath.join(directory, url))
        return DataRemote(name, "local", path, secrets)
    return DataRemote(name, scheme, url, secrets)


def _default(parser: configparser.ConfigParser) -> tuple[str, str]:
    """Name and URL of the default remote; each empty where it is not said."""
    name = _plain(parser.get("core", "remote", fallback="") or "")
    section = _section(parser, name)
    return name, _plain(parser.get(section, "url", fallback="") or "") if section else ""


def _section(parser: configparser.ConfigParser, name: str) -> str | None:
    return next((s for s in parser.sections() if _plain(s) == f'remote "{name}"'), None)


def _plain(text: str) -> str:
    """Without the quotes that a section or value may stand in."""
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
