"""From the result of an evaluation to JSON."""

from collections.abc import Callable
from typing import Any, Final

from losswire.server.catalogue.value_rules import Array
from losswire.server.http.message_json import to_json
from losswire.server.pipeline.encode import Encoded
from losswire.wire import decode_tensor, json_number

_FACTORS: Final = ("lse", "scale", "lse_tail")

WriteTensor = Callable[[str, Array], Any]
"""Returns the JSON of a tensor, which has a path such as `gradients.input`."""


def result_json(encoded: Encoded, write: WriteTensor) -> dict[str, Any]:
    """Return a result as JSON, in which `write` puts tensors, on any thread."""
    message = encoded.message
    loss = decode_tensor(message.loss)
    return {
        "loss": write("loss", loss),
        "data_type": loss.dtype.name,
        "sum": json_number(message.sum),
        "mean_numerator": json_number(message.mean_numerator),
        "mean_denominator": json_number(message.mean_denominator),
        "count": message.count,
        "gradients": {
            name: write(f"gradients.{name}", array)
            for name, array in sorted(gradients_of(encoded).items())
        },
        "factored_gradients": {
            name: {
                part: write(f"factored_gradients.{name}.{part}", decode_tensor(getattr(each, part)))
                for part in _FACTORS
            }
            for name, each in sorted(message.factored_gradients.items())
        },
        "queue_nanoseconds": message.queue_nanoseconds,
        "compute_nanoseconds": message.compute_nanoseconds,
        "receipt": to_json(message.receipt),
    }


def gradients_of(encoded: Encoded) -> dict[str, Array]:
    """Return the dense gradients of a result by input name."""
    return {
        name: array if array is not None else decode_tensor(tensor)
        for name, tensor in encoded.message.gradients.items()
        for array in [encoded.detached.get(f'gradients["{name}"]')]
    }


def result_numbers(encoded: Encoded) -> int:
    """Return how many numbers the tensors of a result have."""
    message = encoded.message
    factors = [
        getattr(each, part) for each in message.factored_gradients.values() for part in _FACTORS
    ]
    others = [decode_tensor(each) for each in (message.loss, *factors)]
    return sum(each.size for each in (*others, *gradients_of(encoded).values()))


def result_bytes(encoded: Encoded) -> int:
    """Return the bytes of the tensors of a result."""
    detached = sum(each.nbytes for each in encoded.detached.values())
    return encoded.message.ByteSize() + detached
