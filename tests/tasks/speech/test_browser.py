"""The report of a whole run in Chromium."""

import pytest
from page_checks import assert_accessible


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_page_is_self_contained_responsive_and_accessible(
    speech_run, open_page, barriers, theme
):
    assert_accessible(open_page, barriers, speech_run / "report.html", theme=theme)
