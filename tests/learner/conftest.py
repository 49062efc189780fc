"""The tiny model as a fixture."""

from __future__ import annotations

from typing import Any

import pytest

from .tiny import tiny_model


@pytest.fixture
def model() -> Any:
    return tiny_model()
