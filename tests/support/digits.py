"""The example data of the console, and what torch makes of it."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from playwright.sync_api import Page

_READ = """
async () => {
  const { digits } = await import("/console/lib/samples.js");
  const columns = await digits();
  return Object.fromEntries(columns.map((each) => [each.name, Array.from(each.data)]));
}
"""


@dataclass(frozen=True)
class Digits:
    """Every fifth of the UCI digits, as two models predict them."""

    labels: torch.Tensor
    logits: Mapping[str, torch.Tensor]

    def losses(self, model: str) -> torch.Tensor:
        """Return the cross entropy of each row."""
        return F.cross_entropy(self.logits[model].double(), self.labels, reduction="none")

    def predicted(self, model: str) -> torch.Tensor:
        """Return the class that each row is taken for."""
        return self.logits[model].argmax(1)

    def confidence(self, model: str) -> torch.Tensor:
        """Return the probability of that class."""
        return self.logits[model].softmax(1).amax(1)

    def calibration_error(self, model: str) -> float:
        """Return the expected calibration error of ten bins of equal width."""
        sure = self.confidence(model).double()
        right = (self.predicted(model) == self.labels).double()
        bins = (sure * 10).floor().clamp(max=9)
        gaps = ((sure - right)[bins == each].sum().abs() for each in range(10))
        return float(torch.stack(list(gaps)).sum() / len(sure))


def digits(page: Page) -> Digits:
    """Read the data as the console does."""
    found = page.evaluate(_READ.strip())
    logits = {
        name: torch.tensor(found[f"logits_{name}"]).reshape(-1, 10) for name in ("small", "large")
    }
    return Digits(labels=torch.tensor(found["digit"]), logits=logits)
