"""The one exception for mistakes a user can mend."""


class UserError(Exception):
    """Says in one line what is wrong, where, and how to mend it.

    `recjax.main` prints the message and exits with code 2. Mistakes in the code
    itself keep their own exceptions and their tracebacks.
    """
