"""Wiring: the two plugins meet here and nowhere else."""

import pytest

pytest.register_assert_rewrite("suites.expect")

pytest_plugins = ["fixtures.plugin", "reports.plugin"]
