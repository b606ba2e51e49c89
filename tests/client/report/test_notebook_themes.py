"""What notebooks show has the colours of the notebook around it, and leaves that alone."""

from collections.abc import Iterator, Mapping

import pytest
from playwright.sync_api import Browser

from tests.support.browser import browsing, needs_browser, serious_in
from tests.support.evaluated import comparison, summary

pytestmark = needs_browser()

LIGHT, DARK = "rgb(255, 255, 255)", "rgb(14, 17, 22)"

HOSTS: Mapping[str, tuple[str, str, str, str]] = {
    "a plain page": ("<html>", "<body>", "light", LIGHT),
    "a plain page in the dark": ("<html>", "<body>", "dark", DARK),
    "JupyterLab": ("<html>", '<body data-jp-theme-light="false">', "light", DARK),
    "JupyterLab, light in the dark": ("<html>", '<body data-jp-theme-light="true">', "dark", LIGHT),
    "VS Code": ("<html>", '<body class="vscode-dark">', "light", DARK),
    "VS Code, light in the dark": ("<html>", '<body class="vscode-light">', "dark", LIGHT),
    "Colab": ('<html theme="dark">', "<body>", "light", DARK),
}
"""The root, the body and the system's colours of a notebook, and the paper that it should have."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser; of this module, because asyncio cannot run while Playwright does."""
    with browsing() as found:
        yield found


@pytest.mark.parametrize("host", HOSTS)
def test_the_paper_is_that_of_the_notebook(browser: Browser, host: str) -> None:
    """Where it says which it has, else that of the system; what is around keeps its style."""
    root, body, scheme, paper = HOSTS[host]
    page = browser.new_page(color_scheme="dark" if scheme == "dark" else "light")
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    outside = "<p id='outside' class='note'>text</p>"
    outputs = summary()._repr_html_(), comparison()._repr_html_()
    before = "() => JSON.stringify({...getComputedStyle(document.getElementById('outside'))})"
    page.set_content(f"{root}{body}{outside}</body></html>")
    style = page.evaluate(before)
    page.set_content(f"{root}{body}{outside}{''.join(outputs)}</body></html>")
    assert page.evaluate(before) == style
    script = "each => getComputedStyle(each).backgroundColor"
    found = [each.evaluate(script) for each in page.locator(".losswire").all()]
    assert found == [paper, paper]
    assert complaints == []
    assert serious_in(page, ".losswire") == []
    page.close()
