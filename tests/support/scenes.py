"""The screens of the console with something on them: looked at, measured and shown in pictures."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from playwright.sync_api import Page, expect

from losswire.client import Client
from tests.support.browser import Serving
from tests.support.predictions import columns


@dataclass(frozen=True)
class Scene:
    """A screen with something on it."""

    screen: str
    query: Mapping[str, str] = field(default_factory=dict)
    shows: tuple[str, ...] = ()
    """Texts that are there once all is."""


SCENES: Final[Mapping[str, Scene]] = {
    "explore": Scene("explore", {"loss": "cross_entropy"}, ("Explain this number",)),
    "curves": Scene("curves", {"losses": "mse_loss~l1_loss~huber_loss"}, ("kink",)),
    "evaluate": Scene("evaluate", {"data": "digits"}, ("over 360 rows", "Take it along")),
    "evaluate-empty": Scene("evaluate", shows=("Choose files",)),
    "compare": Scene("compare", {"data": "digits"}, ("over 360 rows", "Rows that differ most")),
    "compare-empty": Scene("compare"),
    "runs": Scene("runs", {"baseline": "night-2"}, ("fails",)),
    "run": Scene("runs", {"run": "night-1"}, ("Slices by lift",)),
    "live": Scene("live", shows=("Last refusals",)),
    "api": Scene("api", shows=("/v1/evaluate",)),
}


def fill(server: Serving) -> None:
    """Keep some runs on a server, for the scenes that show them."""
    found = columns()
    batch = {each: found[each] for each in ("prediction", "better", "target", "country")}
    nights = ("prediction", "better", "prediction", "better")
    with Client(server.grpc) as client:
        for i, column in enumerate(nights, 1):
            part = {name: values[: 400 + 400 * i] for name, values in batch.items()}
            summary = client.summarize(
                "mse_loss", [part], columns={"input": column}, slices=["country"]
            )
            labels = {"model": "b" if column == "better" else "a", "commit": f"3f2c{i}"}
            client.runs.save(summary, "nightly", labels, run_id=f"night-{i}")


def show(page: Page, scene: Scene, server: Serving) -> None:
    """Open a scene, and wait until it stands."""
    page.goto(server.url(scene.screen, **scene.query))
    expect(page.locator("main h1")).to_be_attached()
    for each in scene.shows:
        expect(page.locator("main")).to_contain_text(each)
    expect(page.locator("main .skeleton")).to_have_count(0)
