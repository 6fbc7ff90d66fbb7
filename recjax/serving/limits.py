"""The limit of requests that wait, for the engine and for stores."""

MAX_QUEUE = 1024  # waiting requests, after which new ones are refused


class QueueFull(Exception):
    """More requests wait than can be answered soon; the caller should try later."""
