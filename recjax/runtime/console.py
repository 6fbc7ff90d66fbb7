"""Console streams that survive closed readers, and the exit of a program."""

import contextlib
import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, NoReturn, TextIO

INTERRUPTED = 130  # exit code after SIGINT, as shells give it
SECONDS_TO_EXIT = 3.0  # for threads and libraries to end after the last message


class Console(io.TextIOBase):
    """A stream whose later output is dropped once nobody reads it any more.

    So a run goes on when its terminal is closed, or its output is piped into `head`.

    Args:
      stream: the stream to write to.
      is_result: whether the output is what the program is for. Then a failure to write
        it, such as a full disk, is an `OSError`.
    """

    def __init__(self, stream: TextIO, is_result: bool = False):
        self._stream = stream
        self._is_result = is_result

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Encoding of the stream."""
        return self._stream.encoding

    def write(self, text: str) -> int:
        """Writes a text; returns its length, whether or not anybody reads it."""
        try:
            self._stream.write(text)
        except OSError as e:
            self._drop(e)
        return len(text)

    def flush(self) -> None:
        """Writes what is buffered."""
        try:
            self._stream.flush()
        except OSError as e:
            self._drop(e)

    def isatty(self) -> bool:
        """Returns whether the stream is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Returns the file descriptor of the stream."""
        return self._stream.fileno()

    def _drop(self, error: OSError) -> None:
        """Discards buffered and later output."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
        if self._is_result and error.errno != errno.EPIPE:
            raise OSError(error.errno, error.strerror, "standard output") from None


def keep_console(is_result: bool = False) -> None:
    """Replaces standard output and error by streams that survive their readers.

    Args:
      is_result: whether standard output is what the program is for, see `Console`.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed before the program started
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # titles in any language
            setattr(sys, name, Console(stream, is_result and name == "stdout"))


@contextlib.contextmanager
def exit_on_interrupt() -> Iterator[None]:
    """Exits at once on SIGINT inside the block, for the imports of a program.

    Libraries with compiled parts may swallow a `KeyboardInterrupt` at their import.
    """

    def interrupted(*_: Any) -> None:
        os.write(2, b"interrupted\n")
        os._exit(INTERRUPTED)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield  # a test, or a shell that starts this in the background
        return
    signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def exit_soon(code: int) -> NoReturn:
    """Exits; threads of libraries that do not end are left after a few seconds."""
    sys.stdout.flush()
    sys.stderr.flush()
    timer = threading.Timer(SECONDS_TO_EXIT, os._exit, [code])
    timer.daemon = True
    timer.start()
    sys.exit(code)
