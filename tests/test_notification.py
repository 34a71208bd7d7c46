"""Whom Slurm mails about a job, and about what."""

from __future__ import annotations

import pytest

from rvstate import config, notification
from rvstate.errors import ConfigError
from rvstate.model.settings import Notifications, Settings

UVA = config.load_site("uva")
LOCAL = config.load_site("local")
QUIET = Settings()
TOLD = Settings(notifications=Notifications(enabled=True, email="me@example.org"))
HOOK = Settings(
    notifications=Notifications(enabled=True, email="me@example.org", url="https://x.example/")
)


def test_the_settings_mail_where_they_are_enabled_and_no_webhook_tells() -> None:
    """As before there were options for it."""
    usual = ("END", "FAIL", "REQUEUE")
    assert notification.mail_options(QUIET, UVA) == ((), "")
    assert notification.mail_options(TOLD, UVA) == (usual, "me@example.org")
    assert notification.mail_options(HOOK, UVA) == ((), "")
    assert notification.mail_options(TOLD, LOCAL) == ((), "")


def test_options_mail_whatever_the_settings_say() -> None:
    """One of both is enough; NONE and an empty text say no."""
    usual = ("END", "FAIL", "REQUEUE")
    assert notification.mail_options(QUIET, UVA, None, "a@b.c") == (usual, "a@b.c")
    assert notification.mail_options(QUIET, UVA, "begin, end") == (("BEGIN", "END"), "")
    assert notification.mail_options(HOOK, UVA, "END", "a@b.c") == (("END",), "a@b.c")
    assert notification.mail_options(TOLD, UVA, "FAIL") == (("FAIL",), "me@example.org")
    assert notification.mail_options(TOLD, UVA, "NONE")[0] == ("NONE",)
    assert notification.mail_options(TOLD, UVA, "") == ((), "")
    assert notification.mail_options(QUIET, UVA, None, "me") == (usual, "me")


@pytest.mark.parametrize("user", ["a b@c.d", "a@b,c@d", "a@b\n", "<a@b.c>", "a@b;rm"])
def test_what_is_no_address_is_refused(user: str) -> None:
    """One address, which nobody takes for two or for anything else."""
    with pytest.raises(ConfigError, match="not one mail address"):
        notification.mail_options(QUIET, UVA, None, user)


def test_an_event_that_slurm_does_not_know_is_named_with_the_nearest() -> None:
    """Before anything is sent."""
    with pytest.raises(ConfigError) as caught:
        notification.mail_types("END,FIAL")
    assert "FIAL" in caught.value.message
    assert "FAIL" in caught.value.remedy
