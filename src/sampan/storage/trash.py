"""Deleting large trees without making anybody wait: rename into the trash now, remove in one background thread.

What is in the trash when the process dies is removed at the next start.
"""

from __future__ import annotations

import contextlib
import os
import queue
import secrets
import threading
from pathlib import Path

from sampan.files.atomic import remove_tree
from sampan.kernel.fds import open_fd

_LATER = 0.03  # seconds: whoever threw it away has an answer to give first, with the same interpreter


class Trash:
    """The trash folder of a driver, on the same file system as what is thrown in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700, exist_ok=True)
        self._waiting: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._mutex = threading.Lock()
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()

    def throw(self, path: Path) -> bool:
        """Make `path` vanish at once; return whether it was there."""
        name = secrets.token_hex(16)
        try:
            path.rename(self.folder / name)
        except FileNotFoundError:
            return False
        self._queue(name)
        return True

    def sweep(self) -> int:
        """Queue what an earlier process left; return how many trees."""
        left = os.listdir(self.folder)
        for name in left:
            self._queue(name)
        return len(left)

    def close(self) -> None:
        """Finish, and stop the thread."""
        with self._mutex:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._ending.set()
            self._waiting.put(None)
            thread.join()
            self._ending.clear()

    def _queue(self, name: str) -> None:
        with self._mutex:
            self._waiting.put(name)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="trash", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        with open_fd(self.folder, os.O_RDONLY | os.O_DIRECTORY) as folder:
            while (name := self._waiting.get()) is not None:
                if self._waiting.empty():
                    self._ending.wait(_LATER)
                # A tree that cannot be removed (an immutable file, a full disk) stays for the next start to try again.
                with contextlib.suppress(OSError):
                    remove_tree(folder, name)
