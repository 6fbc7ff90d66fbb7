"""How a run ends but for its results."""

STOPPED = 75  # exit code: ended by a signal, saved, to be resumed
PROCESS_LOST = 76  # exit code: another process of the run is gone


class UserError(Exception):
    """Says in one line what is wrong, where, and how to mend it.

    `recjax.main` prints the message and exits with code 2. Mistakes in the code
    itself keep their own exceptions and their tracebacks.
    """


class Stopped(BaseException):
    """A signal asked the run to end.

    Not an `Exception`, so that nothing takes it for a failure of its own.

    Attributes:
      saved: whether a save has all that there is to save.
    """

    def __init__(self, *, saved: bool):
        super().__init__()
        self.saved = saved
