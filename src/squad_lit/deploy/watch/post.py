"""Lines that are posted to a server, in their order, as long as it takes."""

from __future__ import annotations

import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException
from typing import Any

from squad_lit.deploy.watch.journal import Journal, Line

# Seconds: until an answer, between two tries (doubled up to the second), and after a stop.
_TIMEOUT, _PAUSES, _LAST = 10.0, (0.5, 60.0), 5.0


class Poster:
    """A thread that posts the lines of a journal to a server, each until the server has taken it.

    A line is the body of a request of its own. Each status of 200 to 299 means that it was taken. After anything else,
    and without an answer, it is sent again, so a server may see a line twice; its ``id`` tells.

    Args:
        url: Where to post to.
        journal: Keeps the lines on the disk until they are taken.

    Raises:
        ValueError: ``url`` is none of HTTP.
    """

    def __init__(self, url: str, journal: Journal) -> None:
        try:
            parts = urllib.parse.urlsplit(url)
            _ = parts.port
        except ValueError as error:
            raise ValueError(f"--post {url}: {error}") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"--post {url}: expected an address that begins with http:// or https://")
        self._url, self._journal = url, journal
        self._open = urllib.request.build_opener(_NoRedirect).open
        self._stopping, self._news = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="post", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Say that there are new lines."""
        self._news.set()

    def close(self) -> None:
        """Post what the server takes within some seconds, and end; the rest stays in the journal."""
        self._stopping.set()
        self._news.set()
        self._thread.join(_TIMEOUT + _LAST)

    def _run(self) -> None:
        failure, pause, end = "", _PAUSES[0], None
        while True:
            if self._stopping.is_set():
                end = end or time.monotonic() + _LAST
            line = self._journal.next_to_post()
            if end is not None and (line is None or failure or time.monotonic() > end):
                return
            if line is None:
                self._news.wait()
                self._news.clear()
                continue
            before, failure = failure, self._try(line)
            if failure:
                if not before:
                    print(f"warning: --post {self._url}: {failure}; trying again", file=sys.stderr, flush=True)
                self._stopping.wait(pause)
                pause = min(2 * pause, _PAUSES[1])
                continue
            self._journal.posted(line)
            if before:
                waiting = self._journal.count_to_post()
                print(f"--post {self._url}: answers again; {waiting:,} lines wait", file=sys.stderr, flush=True)
            pause = _PAUSES[0]

    def _try(self, line: Line) -> str:
        """Post a line; returns what went wrong."""
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._url, line.text.encode(), headers)
        try:
            with self._open(request, timeout=_TIMEOUT) as answer:
                return "" if 200 <= answer.status < 300 else f"status {answer.status}"
        except urllib.error.HTTPError as error:
            error.close()
            return f"status {error.code}"
        except (OSError, HTTPException) as error:
            return str(getattr(error, "reason", error)) or type(error).__name__


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Makes a redirection an error: urllib would follow it with a GET, without the line."""

    def redirect_request(self, *arguments: Any) -> None:
        return None
