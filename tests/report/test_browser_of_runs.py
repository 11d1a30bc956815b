"""The pages of runs in Chromium, as those of `test_browser.py`."""

import pytest


@pytest.fixture(scope="module")
def reports(finished_run, speech_run, video_run, hierarchy_run):
    """All of them before Chromium starts: it keeps an event loop that they need."""
    runs = {
        "digits": finished_run,
        "hierarchy": hierarchy_run,
        "speech": speech_run,
        "video": video_run,
    }
    return {name: run / "report.html" for name, run in runs.items()}


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", ["digits", "hierarchy", "speech", "video"])
def test_a_page_loads_alone_fits_and_has_no_barriers(
    reports, open_page, barriers, name, theme
):
    for width in (390, 1280):
        page = open_page(reports[name], theme=theme, width=width)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert barriers(page) == []
        if name in ("digits", "hierarchy"):
            page.get_by_role("status").get_by_text("pixels change").wait_for()
