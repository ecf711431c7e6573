"""The networks of the keypoints: fetched if they never were; a test that needs them skips where they cannot be had."""

from __future__ import annotations

import pytest

from gpupipe.errors import MissingInputError, UsageError
from gpupipe.ops.keypoints.models import fetch, read_models


def require_models() -> dict[str, bytes]:
    """The files."""
    try:
        return read_models()
    except MissingInputError:
        try:
            fetch()
        except UsageError as error:
            pytest.skip(f"the networks cannot be had: {error}")
    return read_models()


def require_networks() -> None:
    """The files, and what runs them on the CPU."""
    pytest.importorskip("ai_edge_litert", reason="pip install gpupipe[keypoints]")
    require_models()
