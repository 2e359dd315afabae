"""A peer's last words are heard although it closed with something unread."""

from __future__ import annotations

from sampan import messages as m
from sampan.launch.channel import Channel


def test_last_words_are_heard_after_a_close_with_unread_messages() -> None:
    ours, theirs = Channel.pair()
    theirs.send(m.Failed(step="user", code=22, text="no"))
    ours.send(m.Release())
    theirs.close()

    message, fds = ours.receive()
    assert isinstance(message, m.Failed) and not fds
    assert ours.receive() == (None, [])
    ours.close()
