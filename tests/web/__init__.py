"""The web application, asked by clients of every kind."""

import pytest

pytest.register_assert_rewrite("web.browsing", "web.parts")
