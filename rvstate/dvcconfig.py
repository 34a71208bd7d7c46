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
    """The default remote, or None where there is none.

    Args:
        texts: The files from the weakest on: `.dvc/config`, `.dvc/config.local`.
        directory: The directory `.dvc` on this machine, which directories are relative to.
    """
    parser = configparser.ConfigParser(interpolation=None, strict=False, allow_no_value=True)
    for text in texts:
        try:
            parser.read_string(text)
        except configparser.Error:
            # DVC itself says so to its user; nothing of it is believed here
            return None
    name = _plain(parser.get("core", "remote", fallback="") or "")
    section = next((s for s in parser.sections() if _plain(s) == f'remote "{name}"'), None)
    if not name or section is None:
        return None
    url = _plain(parser.get(section, "url", fallback="") or "")
    secrets = tuple(key for key in parser[section] if key in _SECRETS)
    scheme, found, _ = url.partition("://")
    if not url.isprintable():
        return None
    if not found:
        path = posixpath.normpath(posixpath.join(directory, url))
        return DataRemote(name, "local", path, secrets)
    return DataRemote(name, scheme, url, secrets)


def _plain(text: str) -> str:
    """Without the quotes that a section or value may stand in."""
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
