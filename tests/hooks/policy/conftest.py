"""Runs the tests of stores where they can wait for one."""

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Call the functions of modules with ``WAITS`` beside the reactor, as fixtures are.

    pytest-twisted calls others inside it, where only a coroutine can wait, and Hypothesis knows none.
    """
    if not getattr(pyfuncitem.module, "WAITS", False):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names})
    return True
