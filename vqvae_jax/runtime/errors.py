"""The one exception for mistakes that the person at the keyboard can mend."""


class UserError(ValueError):
    """A mistake in a config, a file or a shape, told in one line.

    The message names the key, file or shape, what was expected and what to do.
    `launch.py` prints it without a traceback and exits with code 2.
    """


class DivergedError(UserError):
    """Training ended because a term became NaN or infinite."""


class CollapsedError(UserError):
    """All vectors have the same code, which therefore says nothing."""


def require(condition: bool, message: str) -> None:
    """Raise UserError with `message` unless `condition` holds."""
    if not condition:
        raise UserError(message)
