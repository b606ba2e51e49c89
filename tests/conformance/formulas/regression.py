"""Losses of regression, and likelihoods."""

from decimal import Decimal

import numpy as np

from tests.conformance.exact import Array, Number, objects
from tests.conformance.formulas.terms import Terms, as_array, where, zeros

PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494")


def mse_loss(input: Array, target: Array, weight: Array | None = None) -> Terms:
    """Weight (x - y)^2; the mean divides by the sum of the weight."""
    values = as_array((input - target) * (input - target))
    if weight is None:
        return Terms(values=values)
    return Terms(values=as_array(weight * values), denominators=weight)


def l1_loss(input: Array, target: Array, weight: Array | None = None) -> Terms:
    """Weight |x - y|; the mean divides by the sum of the weight."""
    values = as_array(np.abs(input - target))
    if weight is None:
        return Terms(values=values)
    return Terms(values=as_array(weight * values), denominators=weight)


def smooth_l1_loss(input: Array, target: Array, beta: float = 1.0) -> Terms:
    """(x - y)^2 / (2 beta) where |x - y| < beta, else |x - y| - beta / 2."""
    bend = Decimal(beta)
    distance = as_array(np.abs(input - target))
    square = as_array(distance * distance / (2 * bend))
    return Terms(values=where(as_array(distance < bend), square, as_array(distance - bend / 2)))


def huber_loss(
    input: Array, target: Array, weight: Array | None = None, delta: float = 1.0
) -> Terms:
    """Weight (x - y)^2 / 2 where |x - y| <= delta, else weight delta (|x - y| - delta / 2)."""
    bend = Decimal(delta)
    distance = as_array(np.abs(input - target))
    square = as_array(distance * distance / 2)
    line = as_array((distance - bend / 2) * bend)
    values = where(as_array(distance <= bend), square, line)
    return Terms(values=values if weight is None else as_array(values * weight))


def poisson_nll_loss(
    input: Array, target: Array, *, log_input: bool = True, full: bool = False, eps: float = 1e-8
) -> Terms:
    """exp(x) - y x, or x - y log(x + eps); full adds Stirling's log(y!) where y > 1."""
    if log_input:
        values = as_array(np.exp(input) - target * input)
    else:
        values = as_array(input - target * np.log(input + Decimal(eps)))
    if full:
        stirling = target * np.log(target) - target + np.log(target * (2 * PI)) / 2
        values = values + where(as_array(target > 1), as_array(stirling), zeros(values.shape))
    return Terms(values=values)


def gaussian_nll_loss(
    input: Array, target: Array, var: Array, *, full: bool = False, eps: float = 1e-6
) -> Terms:
    """(log v + (x - y)^2 / v) / 2 with v = max(var, eps); full adds log(2 pi) / 2."""
    if var.ndim < input.ndim:
        var = var[..., np.newaxis]
    # By v, not by var: torch raises the variance outside of what it differentiates.
    variance = objects((_raised(each, Decimal(eps)) for each in var.ravel()), var.shape)
    distance = input - target
    values = (np.log(variance) + distance * distance / variance) / 2
    return Terms(values=as_array(values + Number(2 * PI).log() / 2 if full else values))


def _raised(number: Number, least: Decimal) -> Number:
    """Raise a number to a least value, but differentiate as if it had been that all along."""
    return number if number >= least else number + (least - number.value)
