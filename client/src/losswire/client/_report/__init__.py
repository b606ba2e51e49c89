"""One self-contained HTML page of a summary or a comparison.

No request leaves the page, its content security policy forbids any, and it is complete where no
scripts run.
"""

import hashlib
from base64 import b64encode
from importlib.resources import files
from string import Template
from typing import Final

from losswire.client._report.comparison_page import ComparisonLike, comparison_body
from losswire.client._report.figures import plot
from losswire.client._report.markup import Html, safe
from losswire.client._report.summary_page import SummaryLike, summary_body
from losswire.client._version import __version__

_FOLDER: Final = files(__package__)


def summary_page(summary: SummaryLike) -> str:
    """Return the page of a summary."""
    return _page(f"{summary.message.loss}: summary", summary_body(summary))


def comparison_page(comparison: ComparisonLike) -> str:
    """Return the page of a comparison."""
    names = ", ".join(comparison.message.candidates)
    return _page(f"{comparison.message.loss}: {names}", comparison_body(comparison))


def _page(title: str, body: Html) -> str:
    """Return a whole page; only the style and the script that it contains may run."""
    drawings, own, script = (
        _FOLDER.joinpath(each).read_text("utf-8")
        for each in ("drawings.css", "style.css", "script.js")
    )
    style = drawings + own
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    template = Template(_FOLDER.joinpath("page.html").read_text("utf-8"))
    return template.substitute(
        policy=policy,
        version=safe(__version__),
        title=safe(title),
        style=style,
        script=script,
        body=body,
    )


def _digest(text: str) -> str:
    """Return the hash by which a policy allows a piece."""
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


__all__ = ["ComparisonLike", "SummaryLike", "comparison_page", "plot", "summary_page"]
