"""Losses as scores of scikit-learn's own estimators, against its own metrics."""

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.metrics import (
    get_scorer,
    hinge_loss,
    log_loss,
    mean_absolute_error,
    mean_squared_error,
)
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from losswire.client import Client
from losswire.client.sklearn import make_scorer


@pytest.fixture(scope="module")
def wine() -> tuple[Any, Any]:
    """Rows of three classes, whose labels are texts."""
    rows, numbers = load_wine(return_X_y=True)
    return rows, np.array(["red", "amber", "white"])[numbers]


@pytest.fixture(scope="module")
def tumours() -> tuple[Any, Any]:
    """Rows of two classes, whose labels are texts."""
    rows, numbers = load_breast_cancer(return_X_y=True)
    return rows, np.array(["no", "yes"])[numbers]


def _logistic() -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression())


def test_cross_validation_by_cross_entropy(server: str, wine: tuple[Any, Any]) -> None:
    """The scores of each fold are those of scikit-learn's log loss."""
    scorer = make_scorer("cross_entropy", server)
    found = cross_val_score(_logistic(), *wine, scoring=scorer, cv=4)
    expected = cross_val_score(_logistic(), *wine, scoring="neg_log_loss", cv=4)
    assert found == pytest.approx(expected, rel=1e-12)


def test_a_search_finds_the_same_estimator(server: str) -> None:
    """Greater is better."""
    rows, targets = load_diabetes(return_X_y=True)
    grid = {"alpha": [0.01, 1.0, 100.0]}
    with Client(server) as client:
        found = GridSearchCV(Ridge(), grid, scoring=make_scorer("mse_loss", client)).fit(
            rows, targets
        )
    expected = GridSearchCV(Ridge(), grid, scoring="neg_mean_squared_error").fit(rows, targets)
    assert found.best_params_ == expected.best_params_
    assert found.best_score_ == pytest.approx(expected.best_score_, rel=1e-12)


def test_scores_in_other_processes(server: str, wine: tuple[Any, Any]) -> None:
    """A scorer with an address connects where it is called."""
    scorer = make_scorer("cross_entropy", server)
    alone = cross_val_score(_logistic(), *wine, scoring=scorer, cv=3)
    assert cross_val_score(_logistic(), *wine, scoring=scorer, cv=3, n_jobs=2).tolist() == (
        alone.tolist()
    )


def test_a_client_stays_in_its_process(server: str) -> None:
    """The error says what to do."""
    with Client(server) as client, pytest.raises(TypeError, match="the server's address instead"):
        pickle.dumps(make_scorer("mse_loss", client))


BINARY: tuple[tuple[str, dict[str, Any]], ...] = (
    ("binary_cross_entropy", {}),
    ("binary_cross_entropy_with_logits", {}),
    ("cross_entropy", {}),
    ("cross_entropy", {"response": "decision_function"}),
    ("soft_margin_loss", {}),
)


@pytest.mark.parametrize(("loss", "fields"), BINARY, ids=str)
def test_two_classes(
    server: str, tumours: tuple[Any, Any], loss: str, fields: dict[str, Any]
) -> None:
    """Five ways to the same number: for logits x, all are log(1 + exp(-x)) of the true class."""
    rows, labels = tumours
    weights = np.linspace(0.5, 2, len(labels))
    estimator = _logistic().fit(rows, labels)
    found = make_scorer(loss, server, **fields)(estimator, rows, labels, weights)
    expected = -log_loss(labels, estimator.predict_proba(rows), sample_weight=weights)
    assert found == pytest.approx(expected, rel=1e-9)


def test_margins(server: str, wine: tuple[Any, Any]) -> None:
    """The loss of a support vector machine from its decision function."""
    rows, labels = wine
    estimator = make_pipeline(StandardScaler(), LinearSVC()).fit(rows, labels)
    scorer = make_scorer("multi_margin_loss", server)
    scores = estimator.decision_function(rows)
    true = scores[np.arange(len(labels)), np.searchsorted(estimator.classes_, labels)]
    margins = np.maximum(0, 1 - true[:, None] + scores)
    expected = (margins.sum(axis=1) - 1).mean() / 3
    assert scorer(estimator, rows, labels) == pytest.approx(-expected, rel=1e-12)
    assert hinge_loss(labels, scores) > 0  # of the nearest class only, another definition


REGRESSIONS = (
    ("mse_loss", mean_squared_error),
    ("l1_loss", mean_absolute_error),
)


@pytest.mark.parametrize(("loss", "metric"), REGRESSIONS, ids=[each[0] for each in REGRESSIONS])
def test_regressions(server: str, loss: str, metric: Callable[..., float]) -> None:
    """With weights, and with targets of integers."""
    rows, targets = load_diabetes(return_X_y=True)
    targets = targets.astype(np.int64)
    weights = np.linspace(0, 1, len(targets))
    estimator = LinearRegression().fit(rows, targets)
    expected = -metric(targets, estimator.predict(rows), sample_weight=weights)
    assert make_scorer(loss, server)(estimator, rows, targets, weights) == pytest.approx(
        expected, rel=1e-12
    )


def test_options_and_inputs(server: str, wine: tuple[Any, Any]) -> None:
    """Class weights are in the order of classes_; a loss without defaults takes what it is told."""
    rows, labels = wine
    estimator = _logistic().fit(rows, labels)
    weight = np.array([1.0, 2.0, 4.0])
    found = make_scorer("cross_entropy", server, inputs={"weight": weight})(estimator, rows, labels)
    true = np.searchsorted(estimator.classes_, labels)
    losses = -np.log(estimator.predict_proba(rows)[np.arange(len(true)), true])
    assert found == pytest.approx(-(losses * weight[true]).sum() / weight[true].sum(), rel=1e-12)
    scorer = make_scorer(
        "poisson_nll_loss",
        server,
        {"log_input": False},
        response="predict",
        target="number",
    )
    counts = true.astype(float) + 1
    regression = LinearRegression().fit(rows, counts)
    predicted = regression.predict(rows)
    expected = -(predicted - counts * np.log(predicted + 1e-8)).mean()
    assert scorer(regression, rows, counts) == pytest.approx(expected, rel=1e-9)


def test_a_probability_of_zero_is_infinite(server: str, wine: tuple[Any, Any]) -> None:
    """Nothing is clipped."""
    rows, labels = wine
    forest = RandomForestClassifier(n_estimators=3, random_state=0).fit(rows[::2], labels[::2])
    score = make_scorer("cross_entropy", server)(forest, rows, labels)
    clipped = get_scorer("neg_log_loss")(forest, rows, labels)
    assert np.isneginf(score)
    assert np.isfinite(clipped)


MISTAKES = (
    ({"loss": "ctc_loss"}, "response, target: both must be given for ctc_loss"),
    ({"loss": "mse_loss", "response": "transform"}, "response: expected one of predict_proba"),
    ({"loss": "mse_loss", "target": "text"}, "target: expected one of class, binary"),
)


@pytest.mark.parametrize(("fields", "text"), MISTAKES, ids=str)
def test_mistakes_are_named(fields: dict[str, Any], text: str) -> None:
    """Before any estimator is fitted."""
    with pytest.raises(ValueError, match=text):
        make_scorer(client="127.0.0.1:1", **fields)


def test_labels_that_do_not_fit(server: str, wine: tuple[Any, Any]) -> None:
    """A class that was not seen, and two classes wanted where there are three."""
    rows, labels = wine
    estimator = _logistic().fit(rows, labels)
    strange = np.where(labels == "red", "blue", labels)
    with pytest.raises(ValueError, match=r"y: the estimator does not know the class .*blue"):
        make_scorer("cross_entropy", server)(estimator, rows, strange)
    with pytest.raises(ValueError, match="'binary' is for 2 classes, and the estimator has 3"):
        make_scorer("binary_cross_entropy", server)(estimator, rows, labels)
