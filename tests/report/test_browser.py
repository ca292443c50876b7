"""The page in a browser, where there is one."""

import shutil
import subprocess

import pytest

from sslrun.report import write

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")

# What a reader does, at the end of the page; what it found goes to the page around it.
ACTS = """<script>{
const told = [];
const table = document.querySelector("table.sortable"), head = table.tHead.rows[0].cells[1];
const names = () => [...table.tBodies[0].rows].map((row) => row.cells[0].dataset.value).join(" ");
table.tHead.rows[0].cells[0].querySelector("button").click();
for (let i = 0; i < 2; i++) {
  head.querySelector("button").click();
  told.push(head.getAttribute("aria-sort") + " " + names());
}
told.push(table.tHead.rows[0].cells[0].getAttribute("aria-sort"));
filter.value = "FIXMATCH waiting";
filter.dispatchEvent(new Event("input"));
told.push([...document.querySelectorAll("tbody tr")].filter((row) => !row.hidden && row.offsetParent).length);
told.push("sideways " + (document.documentElement.scrollWidth - document.documentElement.clientWidth));
parent.postMessage(told.join("; "), "*");
}</script></body>"""


@pytest.mark.parametrize("width", [390, 1280])
def test_it_sorts_filters_and_never_scrolls_sideways(swept, make, tmp_path, width):
    for path in swept.iterdir():
        if path.is_dir():
            make.curves(path, [0.5, 0.6])
    for seed in (0, 1):
        shutil.rmtree(swept / f"method=fixmatch,labels=10,seed={seed}")
    page = write([swept], tmp_path / "r").page
    page.write_text(page.read_text().replace("</body>", ACTS))
    # Headless Chromium makes no window narrower than 500 pixels; a frame is as narrow as it is told.
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<body><iframe src="r/index.html" width="{width}" height="800"></iframe><script>'
        "onmessage = (event) => document.body.append(event.data)</script>"
    )
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1400,900"]
    command = [BROWSER, *flags, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", frame.as_uri()]
    said = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout.rpartition("</script>")[2]
    down, up, other, shown, sideways = said.partition("</body>")[0].split("; ")
    assert (
        down == "descending simclr supervised (reference) raw (reference) random (reference) fixmatch"
    )  # which has no number there
    assert up == "ascending random (reference) raw (reference) supervised (reference) simclr fixmatch"
    assert (other, shown, sideways) == ("none", "4", "sideways 0")
