"""Scores estimators of scikit-learn by a loss of a server: `cross_val_score(..., scoring=scorer)`.

Imports no scikit-learn: an estimator is any object that has its methods.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from losswire.client import Client
from losswire.wire import OptionScalar

Response = Literal["predict_proba", "decision_function", "predict"]
Target = Literal["class", "binary", "sign", "number"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class _Use:
    """How a loss gets its input and target."""

    response: Response
    target: Target
    logarithm: bool = False
    """Whether the input is the logarithm of probabilities."""


_USES: Final[Mapping[str, _Use]] = {
    "cross_entropy": _Use("predict_proba", "class", logarithm=True),
    "nll_loss": _Use("predict_proba", "class", logarithm=True),
    "multi_margin_loss": _Use("decision_function", "class"),
    "binary_cross_entropy": _Use("predict_proba", "binary"),
    "binary_cross_entropy_with_logits": _Use("decision_function", "binary"),
    "soft_margin_loss": _Use("decision_function", "sign"),
    "mse_loss": _Use("predict", "number"),
    "l1_loss": _Use("predict", "number"),
    "smooth_l1_loss": _Use("predict", "number"),
    "huber_loss": _Use("predict", "number"),
}
"""How the losses are used that estimators are scored by."""

_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "response": ("predict_proba", "decision_function", "predict"),
    "target": ("class", "binary", "sign", "number"),
}


def make_scorer(
    loss: str,
    client: Client | str,
    options: Mapping[str, OptionScalar] | None = None,
    *,
    response: Response | None = None,
    target: Target | None = None,
    inputs: Mapping[str, Any] | None = None,
    timeout: float | None = None,
) -> "LossScorer":
    """Return a scorer: minus the mean loss, so that greater is better.

    `client`: a Client, or the address of a server. Only a scorer with an address can be sent to
    other processes (`n_jobs`); it connects in each of them. `options` are those of the loss,
    `inputs` its further inputs, such as the `weight` of each class in the order of
    `estimator.classes_`. `timeout` is in seconds.

    `response` is the method of the estimator whose result is the loss's input, `target` what
    becomes of y:

    - "class": the number of its class in `classes_`; the input has a column for each class. Where
      `decision_function` has one column, which is so with two classes, a column of zeros for the
      first class is put before it: their difference is what counts.
    - "binary": 0 or 1, "sign": -1 or 1, for two classes; the input is that of the second.
    - "number": itself, in the dtype of the input.

    None: as the loss needs it. `cross_entropy` and `nll_loss` take the logarithm of `predict_proba`
    and the class (a probability of 0 for the true class gives an infinite loss; it is not clipped);
    with another `response` the input is taken as it is. `multi_margin_loss`: `decision_function`
    and the class; `binary_cross_entropy`: `predict_proba`, `binary_cross_entropy_with_logits`:
    `decision_function`, both "binary"; `soft_margin_loss`: `decision_function` and "sign";
    `mse_loss`, `l1_loss`, `smooth_l1_loss`, `huber_loss`: `predict` and "number". For other losses,
    both must be given.

    Raises ValueError for other choices, and for a loss that needs both and has none.

    Example:
        >>> from losswire.client.sklearn import make_scorer
        >>> from sklearn.dummy import DummyRegressor
        >>> from sklearn.model_selection import cross_val_score
        >>> scorer = make_scorer("mse_loss", client)
        >>> rows, targets = np.zeros((4, 1)), np.array([0.0, 2.0, 0.0, 2.0])
        >>> cross_val_score(DummyRegressor(), rows, targets, scoring=scorer, cv=2).tolist()
        [-1.0, -1.0]
    """
    use = _use_of(loss, response, target)
    return LossScorer(
        loss,
        client,
        options=dict(options or {}),
        use=use,
        inputs=dict(inputs or {}),
        timeout=timeout,
    )


def _use_of(loss: str, response: Response | None, target: Target | None) -> _Use:
    """Return how a loss is used: as it is told, and else as it is known."""
    for name, given in (("response", response), ("target", target)):
        if given is not None and given not in _CHOICES[name]:
            choices = ", ".join(_CHOICES[name])
            raise ValueError(f"{name}: expected one of {choices}, got {given!r}")
    known = _USES.get(loss)
    if known is None and (response is None or target is None):
        raise ValueError(
            f"response, target: both must be given for {loss}; known are {', '.join(_USES)}"
        )
    return _Use(
        response=response or (known.response if known else "predict"),
        target=target or (known.target if known else "number"),
        logarithm=known is not None and known.logarithm and response in (None, "predict_proba"),
    )


class LossScorer:
    """A scorer, made by `make_scorer`: called with an estimator, its rows and their targets.

    Example:
        >>> from losswire.client.sklearn import make_scorer
        >>> from sklearn.dummy import DummyClassifier
        >>> rows, labels = np.zeros((4, 1)), np.array(["no", "yes", "yes", "yes"])
        >>> estimator = DummyClassifier(strategy="prior").fit(rows, labels)
        >>> scorer = make_scorer("cross_entropy", client)
        >>> round(scorer(estimator, rows, labels), 4)
        -0.5623
    """

    def __init__(
        self,
        loss: str,
        client: Client | str,
        *,
        options: Mapping[str, OptionScalar],
        use: _Use,
        inputs: Mapping[str, Any],
        timeout: float | None,
    ) -> None:
        self._loss = loss
        self._client = client
        self._options = options
        self._use = use
        self._inputs = inputs
        self._timeout = timeout
        self._connected: Client | None = None

    def __call__(
        self,
        estimator: Any,
        X: Any,  # noqa: N803 - scikit-learn's names
        y: Any,
        sample_weight: Any = None,
    ) -> float:
        """Return minus the mean loss of a fitted estimator over some rows.

        `X`: as the estimator takes it. `y`: N labels of classes that it knows, or numbers.
        `sample_weight`: N weights, or None. Raises AttributeError where the estimator has no such
        method, ValueError for labels that it does not know and where "binary" or "sign" meet other
        than two classes, and as `Client.evaluate` does.
        """
        scores = np.asarray(getattr(estimator, self._use.response)(X))
        targets = np.asarray(y)
        if self._use.target == "number":
            given, wanted = scores, targets.astype(scores.dtype, copy=False)
        else:
            classes = np.asarray(estimator.classes_)
            given, wanted = self._classified(scores, _positions(classes, targets), len(classes))
        weights = None if sample_weight is None else np.asarray(sample_weight, np.float64)
        result = self._open().evaluate(
            self._loss,
            {"input": given, "target": wanted, **self._inputs},
            self._options,
            reduction="mean",
            sample_weight=weights,
            timeout=self._timeout,
        )
        return -float(result.loss)

    def _classified(self, scores: Array, positions: Array, classes: int) -> tuple[Array, Array]:
        """Return input and target of a classification."""
        if self._use.target == "class":
            if scores.ndim == 1:
                scores = np.stack([np.zeros_like(scores), scores], axis=1)
            if self._use.logarithm:
                with np.errstate(divide="ignore"):
                    scores = np.log(scores)
            return scores, positions
        if classes != 2:  # noqa: PLR2004 - as the targets say
            raise ValueError(
                f"target: {self._use.target!r} is for 2 classes, and the estimator has {classes}"
            )
        one = scores if scores.ndim == 1 else scores[:, -1]
        numbers = positions.astype(one.dtype)
        return one, numbers if self._use.target == "binary" else 2 * numbers - 1

    def _open(self) -> Client:
        """Return the client; the one of an address is opened when it is first needed."""
        if isinstance(self._client, Client):
            return self._client
        if self._connected is None:
            self._connected = Client(self._client)
        return self._connected

    def __getstate__(self) -> dict[str, Any]:
        if isinstance(self._client, Client):
            raise TypeError(
                "a scorer with a Client stays in its process; for several, as with n_jobs, give "
                "make_scorer the server's address instead"
            )
        return {**vars(self), "_connected": None}

    def __repr__(self) -> str:
        return f"<LossScorer: minus {self._loss} of {self._use.response}>"


def _positions(classes: Array, labels: Array) -> Array:
    """Return the number of each label among the classes, which are in ascending order."""
    positions = np.minimum(np.searchsorted(classes, labels), len(classes) - 1)
    unknown = classes[positions] != labels
    if unknown.any():
        first = labels[unknown][0]
        raise ValueError(f"y: the estimator does not know the class {first!r}")
    return positions.astype(np.int64)


__all__ = ["LossScorer", "make_scorer"]
