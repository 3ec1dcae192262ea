"""What a report draws is drawn."""

import pytest


@pytest.fixture(autouse=True)
def drawn(as_for_users):
    """As for users."""
