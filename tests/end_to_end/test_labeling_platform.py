"""The contract of the labeling platform, kept by a real Label Studio."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from backend.launcher.label_studio_server import LabelStudioServer
from tests.contract.test_labeling_platform import *  # noqa: F403  (its tests, all of them)
from tests.contract.test_labeling_platform import RealWorld, Stage

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]


@pytest.fixture
def stage(label_studio: LabelStudioServer) -> Iterator[Stage]:
    """The contract's stage, in a real Label Studio."""
    real = RealWorld(label_studio.url, label_studio.credentials.token)
    try:
        yield Stage(real.platform, real)
    finally:
        real.close()
