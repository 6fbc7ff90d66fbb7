"""A console that may go away, and an end that comes soon after the last message."""

import io
import os
import sys
import threading
from typing import NoReturn, TextIO

SECONDS_TO_EXIT = 3.0  # for threads and libraries to end after the last message


class Console(io.TextIOBase):
    """A stream whose later output is dropped once nobody reads it any more.

    So a run goes on when its terminal is closed, or its output is piped into `head`.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Encoding of the stream."""
        return self._stream.encoding

    def write(self, text: str) -> int:
        """Writes a text; returns its length, whether or not anybody reads it."""
        try:
            self._stream.write(text)
        except OSError:
            self._drop()
        return len(text)

    def flush(self) -> None:
        """Writes what is buffered."""
        try:
            self._stream.flush()
        except OSError:
            self._drop()

    def isatty(self) -> bool:
        """Returns whether the stream is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Returns the file descriptor of the stream."""
        return self._stream.fileno()

    def _drop(self) -> None:
        """Sends what is buffered, and all that follows, to nowhere."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


def keep_console() -> None:
    """Replaces standard output and error by streams that survive their readers."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed before the program started
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # titles in any language
            setattr(sys, name, Console(stream))


def leave(code: int) -> NoReturn:
    """Exits; threads of libraries that do not end are left after a few seconds."""
    sys.stdout.flush()
    sys.stderr.flush()
    timer = threading.Timer(SECONDS_TO_EXIT, os._exit, [code])
    timer.daemon = True
    timer.start()
    sys.exit(code)
