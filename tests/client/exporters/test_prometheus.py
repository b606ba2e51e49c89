"""A real Prometheus scrapes a summary, and its answers are those of the summary."""

import shutil
from collections.abc import Iterator

import pytest

from losswire.client import Summary
from losswire.client.exporters.prometheus import CONTENT_TYPE, exposition, wsgi_app
from tests.support.evaluated import comparison, summary
from tests.support.prometheus import Prometheus, scraping

WEIGHTED = summary(weighted=True, below_zero=0.3, nan=0, cross=True)
EMPTY = summary(rows=5)
PAIR = comparison()


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that has scraped three expositions."""
    executable = shutil.which("prometheus")
    if executable is None:
        pytest.skip("needs Debian's prometheus")
    page = b"".join(
        (
            exposition(WEIGHTED, labels={"model": 'a "b" \\ \n'}),
            exposition(EMPTY, name="empty_loss"),
            exposition(PAIR, name="pair_loss"),
        )
    )
    folder = tmp_path_factory.mktemp("prometheus")
    with scraping(executable, wsgi_app(lambda: page), folder) as started:
        started.wait("pair_loss_rows")
        yield started


QUANTILES = (0.01, 0.25, 0.5, 0.9, 0.99)


@pytest.mark.parametrize("q", QUANTILES)
def test_quantiles_agree_within_a_bucket(prometheus: Prometheus, q: float) -> None:
    """Prometheus interpolates in the bucket whose middle the summary gives."""
    found = prometheus.number(f'histogram_quantile({q}, losswire_loss{{table=""}})')
    assert found == pytest.approx(WEIGHTED.quantile(q), rel=2 * WEIGHTED.accuracy)


def test_counts_and_sums_are_the_same(prometheus: Prometheus) -> None:
    """Weights are doubles there, too."""
    series = 'losswire_loss{table=""}'
    count = prometheus.number(f"histogram_count({series})")
    assert count == pytest.approx(WEIGHTED.weight_sum, rel=1e-14)
    assert prometheus.number(f"histogram_sum({series})") == WEIGHTED.sum


def test_every_bucket_arrives(prometheus: Prometheus) -> None:
    """The bounds and weights of the stored histogram, read back."""
    [series] = prometheus.query('losswire_loss{table=""}')
    found = [
        (float(low), float(high), float(weight))
        for _, low, high, weight in series["histogram"][1]["buckets"]
    ]
    expected = WEIGHTED.histogram()
    kept = [
        (low, high, weight)
        for low, high, weight in zip(
            expected.edges[:-1], expected.edges[1:], expected.weights, strict=True
        )
        if weight
    ]
    assert len(found) == len(kept)
    for (low, high, weight), (expected_low, expected_high, expected_weight) in zip(
        found, kept, strict=True
    ):
        assert (low, high) == pytest.approx((expected_low, expected_high), rel=1e-12)
        assert weight == expected_weight


def test_gauges_and_slices(prometheus: Prometheus) -> None:
    """One series for all rows and for each slice, with the caller's labels."""
    for label, each in WEIGHTED.slices["country"].items():
        series = f'losswire_loss_mean{{table="country",slice="{label}"}}'
        assert prometheus.number(series) == each.mean
    [whole] = prometheus.query('losswire_loss_standard_error{table=""}')
    assert float(whole["value"][1]) == WEIGHTED.standard_error
    assert whole["metric"]["model"] == 'a "b" \\ \n'
    assert prometheus.number('losswire_loss_ignored_rows{table=""}') == 5
    assert prometheus.number('count(losswire_loss_rows{table="country\u00d7half"})') == 8


def test_candidates_are_labels(prometheus: Prometheus) -> None:
    """The median of each."""
    for name, each in PAIR.items():
        series = f'pair_loss{{candidate="{name}",table=""}}'
        found = prometheus.number(f"histogram_quantile(0.5, {series})")
        assert found == pytest.approx(each.quantile(0.5), rel=2 * PAIR.accuracy)


def test_no_rows(prometheus: Prometheus) -> None:
    """A histogram without buckets is still one."""
    assert prometheus.number('histogram_count(empty_loss{table=""})') == 0
    assert prometheus.number('empty_loss_rows{table=""}') == 0


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"name": "a-b"}, "name: Prometheus has no metrics named 'a-b'"),
        ({"labels": {"a b": "c"}}, "labels: 'a b' cannot be the name of a label here"),
        ({"labels": {"__x": "c"}}, "labels: '__x' cannot be"),
        ({"labels": {"slice": "c"}}, "labels: 'slice' cannot be"),
        ({"slices": -1}, "slices: expected a number of at least 0"),
    ],
)
def test_mistakes_are_named(fields: dict[str, object], text: str) -> None:
    """The message begins with the argument."""
    with pytest.raises(ValueError, match=text):
        exposition(summary(), **fields)  # type: ignore[arg-type]


def test_the_page_names_its_format() -> None:
    """Prometheus reads the content type before the page."""
    answers: list[tuple[str, list[tuple[str, str]]]] = []
    app = wsgi_app(lambda: b"abc")

    def start(status: str, headers: list[tuple[str, str]], *_: object) -> None:
        answers.append((status, headers))

    assert list(app({}, start)) == [b"abc"]  # type: ignore[arg-type]
    assert answers == [("200 OK", [("Content-Type", CONTENT_TYPE), ("Content-Length", "3")])]


def test_a_restored_summary_gives_the_same_page() -> None:
    """The bytes follow from the state alone."""
    assert exposition(Summary.from_bytes(WEIGHTED.to_bytes())) == exposition(WEIGHTED)
