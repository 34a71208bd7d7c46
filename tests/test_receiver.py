"""The receiver: what it takes, refuses and passes on; a mail server and a chat stand in."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from hypothesis import given
from hypothesis import strategies as st

from rvstate.receiver.check import MOST_BYTES, TOLERANCE, Event, Refusal, check, signature, subject
from rvstate.receiver.check import text as body_text
from rvstate.receiver.limits import Rate, Seen
from tests.webhook import SECRET, Address

EVENT = {
    "schema": 1,
    "id": "r:41.end",
    "event": "FAILED",
    "run": "r",
    "job": "41",
    "name": "rv-train",
    "cluster": "me@c",
    "state": "FAILED",
    "at": 1700000000,
    "exit_code": 3,
}
NOW = 1_800_000_000


def signed(body: bytes, at: int = NOW, secret: str = SECRET) -> dict[str, str]:
    return {
        "rvstate-time": str(at),
        "rvstate-signature": f"v1={signature(secret, at, body)}",
    }


def judged(event: object, at: int = NOW, secret: str = SECRET) -> Event | Refusal:
    body = json.dumps(event).encode()
    return check(signed(body, at, secret), body, SECRET, NOW)


def status(found: Event | Refusal) -> int:
    return found.status if isinstance(found, Refusal) else 200


def test_an_event_is_taken_with_all_its_fields() -> None:
    """As it was sent; fields of a later version do no harm."""
    found = judged({**EVENT, "element": 5})
    assert isinstance(found, Event)
    wanted = {key: value for key, value in EVENT.items() if key != "schema"}
    assert {k: v for k, v in dataclasses.asdict(found).items() if k in wanted} == wanted


@pytest.mark.parametrize(
    ("at", "expected"), [(0, 200), (TOLERANCE, 200), (TOLERANCE + 1, 403), (-TOLERANCE - 1, 403)]
)
def test_what_is_stale_is_refused(at: int, expected: int) -> None:
    """Before and behind, by the signed time."""
    assert status(judged(EVENT, NOW + at)) == expected


def test_another_secret_is_refused() -> None:
    """Without a word of what else may be wrong."""
    assert judged({"no": "event"}, NOW + 10**6, "another-secret-01234") == Refusal(
        403, "not signed with this secret"
    )


@given(st.data())
def test_no_byte_can_be_changed(data: st.DataObject) -> None:
    """Body, time and signature are bound together."""
    body = json.dumps(EVENT).encode()
    headers = signed(body)
    where = data.draw(st.sampled_from(["body", *headers]))
    whole = body if where == "body" else headers[where].encode()
    at = data.draw(st.integers(0, len(whole) - 1))
    letter = data.draw(st.integers(0, 127).filter(lambda n: n != whole[at]))
    changed = whole[:at] + bytes([letter]) + whole[at + 1 :]
    if where == "body":
        assert status(check(headers, changed, SECRET, NOW)) == 403
    else:
        assert status(check({**headers, where: changed.decode()}, body, SECRET, NOW)) == 403


@pytest.mark.parametrize(
    "event",
    [
        [],
        "x",
        {},
        {**EVENT, "schema": 2},
        {**EVENT, "event": "SHUTDOWN"},
        {**EVENT, "id": ""},
        {**EVENT, "name": 7},
        {**EVENT, "name": "x" * 301},
        {**EVENT, "exit_code": "3"},
        {**EVENT, "at": True},
        {key: value for key, value in EVENT.items() if key != "job"},
    ],
)
def test_what_is_no_event_is_refused(event: object) -> None:
    """Though it is signed."""
    assert status(judged(event)) == 400


@given(st.binary(max_size=200), st.dictionaries(st.text(), st.text()))
def test_nothing_makes_it_fall_over(body: bytes, headers: dict[str, str]) -> None:
    """Any bytes are refused, with or without a good signature."""
    assert status(check(headers, body, SECRET, NOW)) in (400, 403)
    assert status(check(signed(body), body, SECRET, NOW)) in (200, 400)


def test_a_large_one_is_refused() -> None:
    """Before anything is computed."""
    assert status(check({}, b"x" * (MOST_BYTES + 1), SECRET, NOW)) == 413


@given(st.text(max_size=60), st.integers())
def test_what_people_read_is_one_line_a_field(name: str, at: int) -> None:
    """No name, and no time, makes another line or an error."""
    found = judged({**EVENT, "name": name, "at": at})
    assert isinstance(found, Event)
    assert len(subject(found).splitlines()) == 1
    assert all(line[:10].strip() for line in body_text(found).splitlines())


def test_a_rate_is_held_and_recovers() -> None:
    """So many in a minute, and again when it is over."""
    rate = Rate(2, 60)
    assert [rate.take(t) for t in (0.0, 1.0, 2.0, 59.0, 60.5, 60.6, 61.5)] == [
        *(True, True, False, False, True, False, True)
    ]


def test_what_was_seen_survives_a_restart(tmp_path: Path) -> None:
    """The file is private."""
    path = tmp_path / "notify" / "seen.sqlite"
    first = Seen(path)
    first.add("a", NOW)
    first.close()
    second = Seen(path)
    assert (second.has("a"), second.has("b")) == (True, False)
    assert path.stat().st_mode & 0o777 == 0o600
    second.close()


class Mailbox:
    """Keeps what the mail server is given; `refusing` makes it say no."""

    def __init__(self) -> None:
        self.mails: list[Any] = []
        self.refusing = False

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if self.refusing:
            return "451 not now"
        self.mails.append((envelope.mail_from, envelope.rcpt_tos, envelope.content))
        return "250 OK"


@pytest.fixture
def mailbox() -> Iterator[tuple[Mailbox, int]]:
    box = Mailbox()
    server = Controller(box, hostname="127.0.0.1", port=free_port())
    server.start()
    yield box, server.port
    server.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def chat() -> Iterator[Address]:
    found = Address()
    yield found
    found.close()


@pytest.fixture
def receiver(tmp_path: Path, mailbox: tuple[Mailbox, int], chat: Address) -> Iterator[str]:
    """`rvstate notify serve` as its user starts it; its address."""
    home = tmp_path / "rv"
    home.mkdir()
    (home / "config.toml").write_text(
        f'[notifications]\ntoken = "{SECRET}"\n[receiver]\nsmtp_host = "127.0.0.1"\n'
        f'smtp_port = {mailbox[1]}\nsmtp_security = "none"\nsender = "rv@example.org"\n'
        f'recipient = "me@example.org"\nchat_url = "{chat.url}"\n'
    )
    port = free_port()
    env = {k: v for k, v in os.environ.items() if not k.startswith("RVSTATE_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "rvstate", "notify", "serve", "--port", str(port)],
        env={**env, "RVSTATE_HOME": str(home), "no_proxy": "127.0.0.1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    end = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}/"
    process.terminate()
    output, _ = process.communicate(timeout=30)
    assert SECRET not in output
    assert chat.url not in output


def post(url: str, event: object, at: int | None = None, secret: str = SECRET) -> tuple[int, str]:
    body = json.dumps(event).encode()
    headers = signed(body, at or int(time.time()), secret)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, body, headers), timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_an_event_becomes_one_mail_and_one_line_of_chat(
    receiver: str, mailbox: tuple[Mailbox, int], chat: Address
) -> None:
    """Escaped where it is markup; a repeat goes nowhere, and nor does what is not ours."""
    evil = {**EVENT, "name": "<!channel> & <b>\r\nBcc: you@example.org"}
    assert post(receiver, evil) == (200, '{"status":"taken"}')
    assert post(receiver, evil) == (200, '{"status":"repeated"}')
    assert post(receiver, evil, secret="another-secret-01234")[0] == 403
    assert post(receiver, evil, at=int(time.time()) - TOLERANCE - 60)[0] == 403
    assert post(f"{receiver}other", evil)[0] == 404
    ((sender, recipients, content),) = mailbox[0].mails
    assert (sender, recipients) == ("rv@example.org", ["me@example.org"])
    mail = message_from_bytes(content)
    assert mail.get_content_type() == "text/plain"
    assert mail["Bcc"] is None
    assert "<!channel> & <b>??Bcc: you@example.org" in str(mail.get_payload(decode=True), "utf-8")
    ((_, said),) = chat.requests
    line = json.loads(said)["text"]
    assert "&lt;!channel&gt; &amp; &lt;b&gt;??Bcc" in line
    assert line.endswith("exit code 3")


def test_what_was_not_passed_on_is_asked_for_again(
    receiver: str, mailbox: tuple[Mailbox, int], chat: Address
) -> None:
    """502 until mail server and chat took it; neither gets it twice."""
    mailbox[0].refusing = True
    assert post(receiver, EVENT)[0] == 502
    mailbox[0].refusing = False
    chat.answers[:] = [500]
    assert post(receiver, EVENT)[0] == 502
    assert post(receiver, EVENT)[0] == 200
    assert len(mailbox[0].mails) == 1
    assert len(chat.requests) == 2


@pytest.mark.slow
def test_a_flood_is_held(receiver: str, mailbox: tuple[Mailbox, int]) -> None:
    """The limit of events in a minute, with a word of when to come again."""
    from rvstate.receiver.app import MOST_EVENTS

    found = [post(receiver, {**EVENT, "id": f"e{n}"})[0] for n in range(MOST_EVENTS + 3)]
    assert found == [200] * MOST_EVENTS + [429] * 3
    assert len(mailbox[0].mails) == MOST_EVENTS


@pytest.mark.slow
def test_the_whole_way_from_a_job_to_a_mailbox(
    receiver: str, mailbox: tuple[Mailbox, int], tmp_path: Path
) -> None:
    """A job on this machine, its events, the receiver, and the mail about each."""
    from tests.runkit import Laptop, repository

    here = Laptop(
        tmp_path / "laptop",
        f'[notifications]\nenabled = true\nurl = "{receiver}"\ntoken = "{SECRET}"\n',
    )
    app = repository(tmp_path / "work/app", {"bad.py": "raise SystemExit(3)\n"})
    here.submit("bad.py", cwd=app)
    end = time.monotonic() + 60
    while len(mailbox[0].mails) < 2:
        assert time.monotonic() < end
        time.sleep(0.1)
    assert here.document("notify", "test")["status"] == 200
    said = [str(message_from_bytes(content)["Subject"]) for _, _, content in mailbox[0].mails]
    assert [line.split()[3] for line in said[:2]] == ["STARTED", "FAILED"]
    assert "this is a test" in said[2]


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    """No token; nowhere to pass events on to; half a mail server."""
    from tests.runkit import Laptop

    token = f'[notifications]\ntoken = "{SECRET}"\n'
    for number, (config, said) in enumerate(
        (
            ("", "no token"),
            (token, "neither where to mail"),
            (f'{token}[receiver]\nsmtp_host = "h"\n', "no recipient"),
        )
    ):
        here = Laptop(tmp_path / str(number), config)
        assert said in here.run("notify", "serve", status=64).stderr
