"""The report of a whole run in Chromium."""

import pytest
from page_checks import PLAYGROUNDS, assert_accessible


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_page_is_self_contained_responsive_and_accessible(
    hierarchy_run, open_page, barriers, theme
):
    report = hierarchy_run / "report.html"
    assert_accessible(open_page, barriers, report, theme=theme, playgrounds=PLAYGROUNDS)
