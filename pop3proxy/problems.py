"""Names what went wrong for the log, without what may be secret in it; handles nothing."""


def described(problem: BaseException) -> str:
    """Name an exception's type, and the place where it was raised.

    Its text and its frames may hold what a client sent, and with it a password.
    """
    trace = problem.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f" at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""
    return f"{type(problem).__name__}{where}"
