"""The page of a report in a browser: it says nothing on the console, asks for nothing, and fits a phone."""

import json
import shutil
import subprocess

import pytest
from report_pages import Parsed

from covid_jax.report import written

QUIET = ('--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
         '--disable-component-update', '--disable-sync', '--host-resolver-rules=MAP * ~NOTFOUND')
BROWSERS = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')
OF_THE_BROWSER = 'not an origin'  # who asks, in Chromium's log, where no page does
MEASURE = '<script>document.documentElement.style.width = "360px"; document.body.dataset.wide = document.body.scrollWidth</script></body>'


@pytest.fixture
def opened(tmp_path_factory):
    """opened(page) -> (the page once its script has run, the lines on the console, the addresses that it asked for)."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not browser:
        pytest.skip(f'there is no Chromium here: none of {", ".join(BROWSERS)}')

    def look(page):
        place = tmp_path_factory.mktemp('browser')
        run = subprocess.run([browser, *QUIET, f'--user-data-dir={place}/user', f'--log-net-log={place}/net.json', '--enable-logging=stderr',
                              '--dump-dom', f'file://{page}'], capture_output=True, text=True, timeout=120)
        log = json.loads((place / 'net.json').read_text())
        asked = {event['params']['url'] for event in log['events']
                 if event.get('params', {}).get('initiator', OF_THE_BROWSER) != OF_THE_BROWSER and 'url' in event['params']}
        told = [line for line in run.stderr.splitlines() if ':CONSOLE' in line]
        return Parsed(run.stdout), told, {url for url in asked if not url.startswith(('data:', 'file:'))}

    return look


@pytest.mark.slow
def test_a_browser_says_nothing_and_asks_for_nothing(folder, opened):
    written.write(folder)
    page = folder / 'report.html'
    page.write_text(page.read_text().replace('</body>', MEASURE))
    parsed, told, asked = opened(page)
    assert not told and not asked
    assert len(parsed.of('input')) == 1  # the script has made a slider of the scan
    assert len([image for image in parsed.of('img') if 'hidden' in image]) == 15  # and shows one of its 16 slices
    assert int(parsed.of('body')[0]['data-wide']) <= 360  # a narrow phone


@pytest.mark.slow
def test_a_page_that_asks_is_noticed(folder, opened, tmp_path):
    """What the test above rests on."""
    page = tmp_path / 'asks.html'
    page.write_text('<body><img src="http://example.org/a.png"><script>console.log("told")</script>')
    _, told, asked = opened(page)
    assert len(told) == 1 and asked == {'http://example.org/a.png'}
