"""The one base of errors that a person can act on."""


class MillraceError(Exception):
    """An expected failure: its text names the cause and, where there is one, the fix.

    The command line prints the text alone; anything else that escapes is a bug and keeps its traceback.
    """


class NotWhole(MillraceError):
    """A cluster lacks a member or a copy, or an operation failed."""
