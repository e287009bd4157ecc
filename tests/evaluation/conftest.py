"""The small video as fixtures."""

import pytest
from evaluation_video import make_video


@pytest.fixture
def video():
    """Six frames, one object."""
    return make_video()


@pytest.fixture
def two_objects():
    """Six frames, objects 3 and 200."""
    return make_video(ids=(3, 200))
