"""Errors that are written for the person who reads them.

A message says what went wrong, where (file, key or rank), and what to do next. The door prints it
without a traceback; every other exception is a defect of ours and keeps its traceback.
"""

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_STOPPED = 75  # EX_TEMPFAIL: stopped and saved, run the same command again


class HvcError(ValueError):
    """Something in the world is not as the command needs it (exit 1)."""

    exit_code = EXIT_FAILED


class PlaceError(HvcError):
    """A folder or disk takes nothing: free space or other rights mend it, and the same again may work."""


class PeerLostError(HvcError):
    """Another process of the same run is gone, and with it whatever they did together."""


class UsageError(HvcError):
    """The command line or a configuration file is wrong in itself (exit 2)."""

    exit_code = EXIT_USAGE
