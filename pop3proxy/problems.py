"""Names what went wrong for the log, without what may be secret in it; handles nothing."""

import traceback

from twisted.python.failure import Failure


def described(problem: BaseException) -> str:
    """Name an exception's type, and the place where it was raised.

    Its text and its frames may hold what a client sent, and with it a password.
    """
    trace = problem.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f" at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""
    return f"{type(problem).__name__}{where}"


def traced(failure: Failure) -> str:
    """Return the calls that led to a failure and its type, a line each, for a failure that was not expected.

    What it would say besides, and what caused it, may hold what a client sent, and with it a password.
    """
    calls = traceback.format_tb(failure.getTracebackObject())
    return f"{''.join(calls)}{type(failure.value).__name__}\n"
