"""The report in a Chromium. Where there is none, the last lines of the test run say so."""

import pytest

from browser import BROWSER, browse, widths

if BROWSER:

    def test_a_browser_complains_of_nothing_and_asks_for_nothing(report, tmp_path):
        assert browse(report / "report.html", tmp_path) == ([], [])
        assert (tmp_path / "page.png").stat().st_size > 10_000

    def test_a_browser_would_tell(tmp_path):
        page = tmp_path / "page.html"
        page.write_text('<img src="http://outside.invalid/x.png"><script>console.error("oh")</script>')
        console, asked = browse(page, tmp_path)
        assert "oh" in console[0]
        assert asked == ["http://outside.invalid/x.png"]

    @pytest.mark.parametrize("width", [320, 390])
    def test_a_telephone_scrolls_it_in_one_direction(report, tmp_path, width):
        assert widths(report / "report.html", tmp_path, width) == (width, width)

    def test_a_page_that_is_too_wide_would_be_noticed(tmp_path):
        page = tmp_path / "page.html"
        page.write_text('<body style="margin: 0"><p style="width: 400px">wide</p></body>')
        assert widths(page, tmp_path, 390) == (390, 400)
