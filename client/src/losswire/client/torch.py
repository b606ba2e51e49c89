"""Losses of a server as torch modules. Needs torch; nothing else of the SDK does.

criterion = RemoteLoss(client, "cross_entropy", label_smoothing=0.1)
criterion(logits, labels).backward()
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from losswire.client import ArrayInput, Client, EvaluationResult, LossInfo, NotFoundError
from losswire.client._messages.evaluation import DTypeInput, EngineName, ReductionName
from losswire.wire import OptionScalar

__all__ = ["RemoteLoss"]

_HALF_PRECISION = (torch.float16, torch.bfloat16)


class RemoteLoss(nn.Module):
    """A loss that a server evaluates, in place of torch's own module of that loss.

    The call takes the loss's inputs, in torch's order or by name, and `sample_weight` and
    `normalizer` by name. The loss, and the gradient of each input that requires one, come back on
    the device of the first tensor. Gradients have their input's dtype; the loss of float16
    and bfloat16 inputs is float32, as under autocast, unless `compute_dtype` says otherwise.

    It replaces torch's own: `RemoteLoss(client, "cross_entropy", label_smoothing=0.1)` for
    `nn.CrossEntropyLoss(label_smoothing=0.1)`.

    A reduced loss is one call, which brings the gradients along when they may be needed;
    `backward` multiplies them by the gradient that it is given. With `reduction="none"`, `backward`
    is a second call, because a gradient then depends on the operations after the loss; with
    `engine="autograd"` it is one, too, where the loss is scaled by anything but a power of 2, so
    that gradients have torch's bits. There is no
    gradient of a gradient, and none with respect to `sample_weight`. Within `torch.no_grad` no
    gradient is asked for.

    The module does not close the client. A module with one cannot be copied or pickled.

    Example:
        >>> criterion = RemoteLoss(client, "cross_entropy", label_smoothing=0.1)
        >>> logits = torch.zeros(2, 4, requires_grad=True)
        >>> loss = criterion(logits, torch.tensor([0, 3]))
        >>> loss.backward()
        >>> round(loss.item(), 4), tuple(logits.grad.shape)
        (1.3863, (2, 4))
    """

    def __init__(
        self,
        client: Client,
        loss: str,
        *,
        reduction: ReductionName | None = None,
        compute_dtype: DTypeInput | None = None,
        engine: EngineName = "auto",
        timeout: float | None = None,
        **settings: OptionScalar | Tensor | list[Any] | tuple[Any, ...] | npt.NDArray[Any] | None,
    ) -> None:
        """Store the loss and its options, such as `label_smoothing=0.1`.

        A tensor is an input that stays the same, such as the `weight` of torch's modules; it
        becomes a buffer, which `to` moves along. So is a list or a numpy array, without a buffer:
        `weight=[1, 2]` takes the type of the input. None leaves an option or input out. The other
        arguments are those of `Client.evaluate`.
        """
        super().__init__()
        self.client = client
        self.loss = loss
        self.reduction = reduction
        self._options: dict[str, OptionScalar] = {}
        self._fixed: list[str] = []
        self._arrays: dict[str, Any] = {}
        for name, setting in settings.items():
            if isinstance(setting, Tensor):
                self._fixed.append(name)
                self.register_buffer(_buffer(name), setting)
            elif isinstance(setting, (list, tuple, np.ndarray)):
                self._fixed.append(name)
                self._arrays[name] = setting
            elif setting is not None:
                self._options[name] = setting
        self._settings = {"compute_dtype": compute_dtype, "engine": engine, "timeout": timeout}
        self._info: LossInfo | None = None

    def forward(
        self,
        *inputs: Tensor | ArrayInput,
        sample_weight: Tensor | ArrayInput | None = None,
        normalizer: float | None = None,
        **named: Tensor | ArrayInput,
    ) -> Tensor:
        """Return the loss: of shape () when reduced, else of the shape of the values.

        `sample_weight` has the shape of the values or (N), and may be a mask of bools or integers;
        `normalizer` is finite and greater than 0. Raises as `Client.evaluate` does; NotFoundError
        when there is no such loss, TypeError for misplaced inputs, ValueError for a
        `sample_weight` that requires a gradient.
        """
        if isinstance(sample_weight, Tensor) and sample_weight.requires_grad:
            raise ValueError("sample_weight: there is no gradient with respect to it; detach it")
        values = self._by_name(inputs, named)
        tensors = {name: each for name, each in values.items() if isinstance(each, Tensor)}
        call = _Call(
            client=self.client,
            loss=self.loss,
            options=self._options,
            fields={
                **self._settings,
                "reduction": self.reduction,
                "sample_weight": sample_weight,
                "normalizer": normalizer,
            },
            names=tuple(tensors),
            others={name: each for name, each in values.items() if name not in tensors},
            wanted=tuple(
                name
                for name, each in tensors.items()
                if each.requires_grad and torch.is_grad_enabled()
            ),
            unreduced=self._described().default_reduction == "none"
            if self.reduction is None
            else self.reduction == "none",
        )
        value: Tensor = _Evaluate.apply(call, *tensors.values())  # type: ignore[no-untyped-call]
        return value

    def extra_repr(self) -> str:
        """Return the loss and its settings, for `repr`."""
        facts = {**self._options, **dict.fromkeys(self._fixed, "...")}
        if self.reduction is not None:
            facts["reduction"] = self.reduction
        return ", ".join([self.loss, *(f"{name}={each}" for name, each in facts.items())])

    def _by_name(
        self, inputs: tuple[Tensor | ArrayInput, ...], named: Mapping[str, Tensor | ArrayInput]
    ) -> dict[str, Any]:
        """Return all inputs by name; positional ones come first."""
        free = [each.name for each in self._described().inputs if each.name not in self._fixed]
        if len(inputs) > len(free):
            message = f"{self.loss} takes at most {len(free)} inputs by place, got {len(inputs)}"
            raise TypeError(message)
        values: dict[str, Any] = dict(zip(free, inputs, strict=False))
        if twice := values.keys() & named.keys() | named.keys() & set(self._fixed):
            message = f"{self.loss} got {', '.join(sorted(twice))} twice"
            raise TypeError(message)
        buffers = [name for name in self._fixed if name not in self._arrays]
        fixed = {name: getattr(self, _buffer(name)) for name in buffers}
        return {**values, **named, **self._arrays, **fixed}

    def _described(self) -> LossInfo:
        """Return the loss's description; the server is asked once."""
        if self._info is None:
            losses = {each.name: each for each in self.client.losses()}
            if self.loss not in losses:
                message = f'there is no loss "{self.loss}"; there are {", ".join(losses)}'
                raise NotFoundError(message)
            self._info = losses[self.loss]
        return self._info


def _buffer(name: str) -> str:
    """Name a fixed input's buffer; a module has attributes of its own, such as `loss`."""
    return f"input_{name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """One evaluation, except for its tensors."""

    client: Client
    loss: str
    options: Mapping[str, OptionScalar]
    fields: Mapping[str, Any]
    names: tuple[str, ...]
    """The names of the tensors, in their order."""
    others: Mapping[str, ArrayInput]
    """The inputs that are not tensors of torch's."""
    wanted: tuple[str, ...]
    """The names of the tensors whose gradients may be needed."""
    unreduced: bool

    def run(
        self, tensors: Sequence[Tensor], *, gradients: bool, grad_output: Tensor | None = None
    ) -> EvaluationResult:
        """Evaluate. Gradients in half precision come in a wider type, to be rounded only once."""
        wanted = self.wanted if gradients else ()
        dtypes = {each.dtype for name, each in self._named(tensors) if name in wanted}
        wide = torch.float64 if torch.float64 in dtypes else torch.float32
        inputs: dict[str, Any] = {**self.others, **dict(self._named(tensors))}
        return self.client.evaluate(
            self.loss,
            inputs,
            self.options,
            gradients=wanted,
            gradient_dtype=wide if dtypes.intersection(_HALF_PRECISION) else None,
            grad_output=grad_output,
            **self.fields,
        )

    def backward(
        self, tensors: Sequence[Tensor], known: Sequence[Tensor], grad_output: Tensor
    ) -> list[Tensor | None]:
        """Return the gradient of each tensor, from those of the loss where these are known."""
        if self.unreduced or self._rounds(grad_output):
            result = self.run(tensors, gradients=True, grad_output=grad_output)
            found = {name: _tensor(result.gradients[name]) for name in self.wanted}
        else:
            scale = grad_output.cpu()
            found = {name: each * scale for name, each in zip(self.wanted, known, strict=True)}
        return [
            found[name].to(device=each.device, dtype=each.dtype) if name in found else None
            for name, each in self._named(tensors)
        ]

    def _rounds(self, grad_output: Tensor) -> bool:
        """Return whether gradients that are multiplied afterwards lack torch's bits.

        torch carries the gradient of the loss through its own operations. Multiplying by a power
        of 2 afterwards is exact.
        """
        mantissa = math.frexp(float(grad_output))[0]
        return self.fields["engine"] == "autograd" and abs(mantissa) not in (0.0, 0.5)

    def _named(self, tensors: Sequence[Tensor]) -> Iterator[tuple[str, Tensor]]:
        return zip(self.names, tensors, strict=True)


class _Evaluate(torch.autograd.Function):
    """The bridge to autograd."""

    @staticmethod
    def forward(ctx: Any, call: _Call, *tensors: Tensor) -> Tensor:
        """Evaluate the loss, and its gradients if they do not depend on later operations."""
        result = call.run(tensors, gradients=not call.unreduced)
        known = [_tensor(result.gradients[name]) for name in call.wanted if not call.unreduced]
        ctx.call = call
        ctx.save_for_backward(*tensors, *known)
        device = tensors[0].device if tensors else torch.device("cpu")
        return _tensor(result.loss).to(device)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients; to differentiate them is an error."""
        call: _Call = ctx.call
        count = len(call.names)
        tensors, known = ctx.saved_tensors[:count], ctx.saved_tensors[count:]
        with torch.no_grad():
            gradients = call.backward(tensors, known, grad_output)
        if torch.is_grad_enabled():  # by create_graph=True
            gradients = [
                None if each is None else _NoSecondDerivative.apply(each, grad_output, *tensors)  # type: ignore[no-untyped-call]
                for each in gradients
            ]
        return None, *gradients


class _NoSecondDerivative(torch.autograd.Function):
    """Connects a gradient to its sources, so that differentiating it is an error."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, *sources: Tensor) -> Tensor:
        """Return the gradient unchanged."""
        del ctx, sources
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> None:
        """Raise RuntimeError."""
        del ctx, grad_outputs
        raise RuntimeError("a RemoteLoss has no second derivatives: its gradient is the server's")


def _tensor(array: npt.NDArray[Any]) -> Tensor:
    """Convert an array to a tensor that shares its memory; bfloat16 by its bits."""
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view("int16")).view(torch.bfloat16)
    return torch.from_numpy(array)
