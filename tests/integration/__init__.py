"""Real clients and servers, with the proxy between them; what is shared by these tests explains itself."""

import pytest

# Modules that assert on the tests' behalf.
pytest.register_assert_rewrite(
    *(f"{__name__}.{module}" for module in ("audit", "proxy", "records"))
)
