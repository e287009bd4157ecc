"""Why a server did not answer, in a few words, out of the nest of exceptions that HTTP libraries make."""

import socket
from collections.abc import Iterator


def network_words(error: BaseException) -> str | None:
    """What stood in the way of a request; None where it is nothing of the network."""
    for one in _nest(error, set()):
        if isinstance(one, TimeoutError):
            return "no answer in time"
        if isinstance(one, socket.gaierror):
            return "no such host"
        if isinstance(one, ConnectionRefusedError):
            return "connection refused: nothing listens there"
        if isinstance(one, ConnectionError):
            return "the connection broke off"
    return None


def _nest(error: object, seen: set[int]) -> Iterator[BaseException]:
    if not isinstance(error, BaseException) or id(error) in seen:
        return
    seen.add(id(error))
    yield error
    for inner in (error.__cause__, error.__context__, getattr(error, "reason", None), *error.args):
        yield from _nest(inner, seen)
