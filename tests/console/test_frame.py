"""The frame around every screen: rail, search, keys, theme."""

import pytest
from playwright.sync_api import expect

from tests.support.browser import Tab, needs_browser

pytestmark = needs_browser()

SCREENS = ("Explore", "Curves", "Evaluate", "Compare", "Runs", "Live", "API")


def test_every_screen_is_a_click_away(tab: Tab) -> None:
    """The rail names each, marks the one that is shown, and the title says it."""
    page = tab.open()
    rail = page.get_by_role("navigation", name="Screens")
    for each in SCREENS:
        link = rail.get_by_role("link", name=each, exact=True)
        link.click()
        expect(link).to_have_attribute("aria-current", "page")
        expect(page).to_have_title(f"{each} · Losswire")
        expect(page.locator("main")).not_to_be_empty()


def test_the_header_says_which_server(tab: Tab) -> None:
    """Its address, device and version, and whether it is ready."""
    header = tab.open().get_by_role("banner")
    expect(header).to_contain_text(tab.server.http)
    expect(header).to_contain_text("cpu")
    expect(header).to_contain_text("READY")


def test_the_palette_goes_anywhere(tab: Tab) -> None:
    """By Ctrl-K, some letters and Enter; Escape leaves the screen as it was."""
    page = tab.open("curves")
    expect(page.locator("main h1")).to_be_attached()
    page.keyboard.press("Control+k")
    search = page.get_by_role("combobox", name="Search losses, screens, runs")
    expect(search).to_be_focused()
    page.keyboard.type("kl div")
    expect(page.get_by_role("dialog").get_by_role("option").first).to_contain_text("kl_div")
    page.keyboard.press("Enter")
    expect(page).to_have_url(tab.server.url("explore", loss="kl_div"))
    page.keyboard.press("Control+k")
    page.keyboard.press("Escape")
    expect(search).not_to_be_attached()
    expect(page).to_have_url(tab.server.url("explore", loss="kl_div"))


def test_question_mark_lists_the_keys(tab: Tab) -> None:
    """And g with a letter goes to a screen."""
    page = tab.open()
    expect(page.locator("main h1")).to_be_attached()
    page.keyboard.press("?")
    keys = page.get_by_role("dialog", name="Keys")
    expect(keys).to_contain_text("Ctrl K")
    page.keyboard.press("Escape")
    expect(keys).not_to_be_attached()
    page.keyboard.press("g")
    page.keyboard.press("r")
    expect(page).to_have_title("Runs · Losswire")


def test_the_theme_is_the_systems_until_it_is_chosen(tab: Tab) -> None:
    """The choice is kept when the page is loaded again."""
    page = tab.open()
    root = page.locator("html")
    expect(root).to_have_attribute("data-theme", "light")
    page.emulate_media(color_scheme="dark")
    expect(root).to_have_attribute("data-theme", "dark")
    page.emulate_media(color_scheme="light")
    page.get_by_role("button", name="Light or dark").click()
    expect(root).to_have_attribute("data-theme", "dark")
    page.reload()
    expect(root).to_have_attribute("data-theme", "dark")


def test_an_unknown_screen_says_so(tab: Tab) -> None:
    """With the way back."""
    page = tab.open("nothing")
    expect(page.locator("main")).to_contain_text("nothing")
    page.locator("main").get_by_role("link").first.click()
    expect(page).to_have_title("Explore · Losswire")


@pytest.mark.parametrize("key", ["Tab"])
def test_the_first_key_skips_to_the_content(tab: Tab, key: str) -> None:
    """Past the rail, for those who do not see it."""
    page = tab.open()
    expect(page.locator("main h1")).to_be_attached()
    page.keyboard.press(key)
    skip = page.get_by_role("link", name="Skip to the content")
    expect(skip).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
