"""The report of a whole run in Chromium."""

from importlib.util import find_spec

import pytest
from page_checks import assert_accessible


@pytest.mark.slow
@pytest.mark.skipif(find_spec("vizdoom") is None, reason="vizdoom is not installed")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_page_is_self_contained_responsive_and_accessible(
    video_run, open_page, barriers, theme
):
    path = video_run / "report.html"
    assert_accessible(open_page, barriers, path, theme=theme, playgrounds=1)
