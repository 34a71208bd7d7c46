"""Where an event goes: a mailbox by SMTP, or a chat by its webhook."""

from __future__ import annotations

import http.client
import json
import smtplib
import ssl
import urllib.request
from collections.abc import Callable
from email.message import EmailMessage

from rvstate.errors import ConfigError, RvstateError
from rvstate.model.settings import Settings
from rvstate.receiver.check import Event, subject, text

Outlet = Callable[[Event], None]
_PATIENCE = 10.0  # seconds


def outlets(settings: Settings) -> tuple[Outlet, ...]:
    """What `[receiver]` asks for.

    Raises:
        ConfigError: It asks for nothing, or for half of something.
    """
    found: list[Outlet] = []
    if settings.receiver.smtp_host:
        recipient = settings.receiver.recipient or settings.notifications.email
        if not recipient:
            raise ConfigError(
                "[receiver] has a mail server and no recipient.",
                "rvstate config set receiver.recipient ADDRESS",
            )
        found.append(lambda event: mail(settings, recipient, event))
    chat_url = settings.receiver.chat_url
    if chat_url:
        found.append(lambda event: chat(chat_url, event))
    if not found:
        raise ConfigError(
            "[receiver] says neither where to mail events (smtp_host) nor which chat gets them "
            "(chat_url).",
            "rvstate config set receiver.smtp_host HOST, or receiver.chat_url - for the chat.",
        )
    return tuple(found)


def mail(settings: Settings, recipient: str, event: Event) -> None:
    """Send one plain text; no field of it is ever read as a header or as HTML.

    Raises:
        RvstateError: The mail server did not take it.
    """
    receiver = settings.receiver
    message = EmailMessage()
    message["Subject"] = subject(event)
    message["From"] = receiver.sender or recipient
    message["To"] = recipient
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(text(event))
    host, safe = receiver.smtp_host or "", ssl.create_default_context()
    try:
        if receiver.smtp_security == "tls":
            server: smtplib.SMTP = smtplib.SMTP_SSL(
                host, receiver.smtp_port or 465, timeout=_PATIENCE, context=safe
            )
        else:
            server = smtplib.SMTP(host, receiver.smtp_port or 587, timeout=_PATIENCE)
        with server:
            if receiver.smtp_security == "starttls":
                server.starttls(context=safe)
            if receiver.smtp_user:
                server.login(receiver.smtp_user, receiver.smtp_password or "")
            server.send_message(message)
    except (OSError, smtplib.SMTPException) as error:
        raise RvstateError(f"{host} did not take the mail: {error}.", "See [receiver].") from error


def chat(url: str, event: Event) -> None:
    """Post one line; the three characters of a chat's own markup are escaped, so nothing is called.

    Raises:
        RvstateError: The chat did not take it.
    """
    line = subject(event)
    if event.exit_code:
        line += f", exit code {event.exit_code}"
    for letter, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        line = line.replace(letter, entity)
    request = urllib.request.Request(  # noqa: S310 - config takes https, and http on loopback
        url,
        json.dumps({"text": line}).encode(),
        {"Content-Type": "application/json"},
        method="POST",
    )
    try:
        with urllib.request.urlopen(request, timeout=_PATIENCE):  # noqa: S310 - as above
            return
    except (OSError, ValueError, http.client.HTTPException) as error:
        # an error of urllib may hold the address, which is a secret
        code = getattr(error, "code", None)
        said = f"it answered {code}" if code else type(error).__name__
        raise RvstateError(f"The chat did not take the event: {said}.", "See [receiver].") from None
