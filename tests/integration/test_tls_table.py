"""The tables of docs/tls.md are those that test_tls_matrix.py holds against real sessions."""

import pytest

from .tls_table import committed, tables


@pytest.mark.parametrize("name", sorted(tables()))
def test_a_table_of_the_chapter_is_what_the_tests_expect(name: str) -> None:
    assert committed(name) == tables()[name], "write it: python -m tests.integration.tls_table"
