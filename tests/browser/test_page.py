"""The page that `vf.view` writes, in a browser: `make test-browser`."""

from __future__ import annotations

import shutil

import pytest
import torch
from playwright.sync_api import Browser, Page, expect, sync_playwright

import vertexflow as vf
from tests.models import FromCode

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def sums(self, v):
    h = v.pull("x") + v.gather(0).h + v.gather(1).h
    v.scatter(h=h)
    v.push(h=h)


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(params=[(1200, 800), (390, 844)], ids=["desktop", "phone"])
def page(browser: Browser, tmp_path, request):
    batch = vf.pack([vf.tree(((0, 1), 2)), vf.chain(3)])
    model = FromCode(sums, {"h": 2}, backend="torch")
    path = vf.view(model, batch, tmp_path / "run.html", x=torch.arange(16.0).reshape(8, 2))
    context = browser.new_context(offline=True, viewport=dict(zip(("width", "height"), request.param, strict=True)))
    opened, failures = context.new_page(), []
    opened.on("pageerror", lambda error: failures.append(error))
    opened.on("request", lambda each: None if each.url.startswith("file:") else failures.append(each.url))
    opened.goto(path.as_uri())
    yield opened
    assert not failures
    context.close()


def vertex(page: Page, number: int):
    return page.locator(f'.vertex[data-vertex="{number}"]')


def test_hovering_shows_step_row_children_and_values(page: Page):
    vertex(page, 4).hover()
    details = page.locator("#details")
    expect(details.locator("h2")).to_have_text("vertex 4")
    said = dict(zip(details.locator("dt").all_text_contents(), details.locator("dd").all_text_contents(), strict=True))
    assert said["graph"] == "0, a root of it"
    assert said["step"] == "2"
    assert said["children"] == "3 (slot 0), 2 (slot 1)"
    assert said["pushed h"] == "float32 [2]20  25"  # 0 + 2 + 4 + 6 + 8, 1 + 3 + 5 + 7 + 9
    assert sorted(each.get_attribute("data-vertex") for each in page.locator(".vertex.child").all()) == ["2", "3"]


def test_moving_through_the_steps(page: Page):
    waiting, now = page.locator(".vertex.waiting"), page.locator(".vertex.now")
    expect(page.locator("#where")).to_contain_text("step 2 of")
    page.locator("#back").click()
    page.locator("#back").click()
    expect(now).to_have_count(4)  # vertices without children
    expect(waiting).to_have_count(4)
    page.keyboard.press("ArrowRight")
    expect(now).to_have_count(2)
    page.locator("#step").fill("0")
    expect(page.locator("#where")).to_contain_text(": 4 vertices")
    page.locator("#steps rect").nth(2).click()
    expect(waiting).to_have_count(0)
    page.locator("#play").click()  # from the last step on: from the first
    expect(waiting).to_have_count(4)
    expect(waiting).to_have_count(0, timeout=5000)


def test_a_click_keeps_a_vertex_and_links_lead_to_children(page: Page):
    heading = page.locator("#details h2")
    vertex(page, 4).click()
    vertex(page, 0).hover()
    expect(heading).to_have_text("vertex 0")
    page.mouse.move(1, 1)
    expect(heading).to_have_text("vertex 4")
    page.locator("#details a").first.click()
    expect(heading).to_have_text("vertex 3")


def test_nothing_is_wider_than_the_window(page: Page):
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
