"""Rows of a data set as the bodies that the HTTP door reads, and as the SDK's batches."""

import io
import json
from base64 import b64decode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import numpy as np
import numpy.typing as npt

from losswire.client import Comparison, Summary
from tests.support.http_door import JSON, NPY, Door, npy

Array = npt.NDArray[Any]
Values = Array | list[Any]

NDJSON: Final = "application/x-ndjson"
ARROW: Final = "application/vnd.apache.arrow.stream"
MEDIA: Final = ("form", "lines", "arrow")
"""The ways in which rows are sent."""


@dataclass(frozen=True)
class Rows:
    """A request and its columns."""

    request: Mapping[str, Any]
    columns: Mapping[str, Values]
    path: str = "/v1/summarize"
    headers: Mapping[str, str] = field(default_factory=dict)

    def send(self, door: Door, media: str) -> httpx.Response:
        """Send the rows in one of the ways."""
        send = {"form": self._as_form, "lines": self._as_lines, "arrow": self._as_arrow}[media]
        return send(door.client)

    def _as_form(self, client: httpx.Client) -> httpx.Response:
        parts: dict[str, Any] = {"request": (None, json.dumps(self.request), JSON)}
        for name, values in self.columns.items():
            if isinstance(values, np.ndarray):
                parts[name] = (f"{name}.npy", npy(values), NPY)
            else:
                parts[name] = (None, json.dumps(values), JSON)
        return client.post(self.path, files=parts, headers=self.headers)

    def _as_lines(self, client: httpx.Client) -> httpx.Response:
        return send_lines(client, self.path, [self.request, *self.rows()], **self.headers)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Return each row as an object."""
        lists = {name: plain(each) for name, each in self.columns.items()}
        for values in zip(*lists.values(), strict=True):
            yield dict(zip(lists, values, strict=True))

    def _as_arrow(self, client: httpx.Client) -> httpx.Response:
        import pyarrow as pa  # noqa: PLC0415 (tests without it use the other ways)

        arrays = {name: arrow_array(each) for name, each in self.columns.items()}
        return send_arrow(client, self.path, self.request, pa.table(arrays), **self.headers)


def plain(values: Values) -> list[Any]:
    """Return values as JSON has them."""
    found: list[Any] = values.tolist() if isinstance(values, np.ndarray) else values
    return found


def arrow_array(values: Values) -> Any:  # noqa: ANN401 (of pyarrow)
    """Return an array of numbers, or of lists of a fixed size."""
    import pyarrow as pa  # noqa: PLC0415 (as above)

    if isinstance(values, np.ndarray) and values.ndim > 1:
        return pa.FixedSizeListArray.from_arrays(arrow_array(values.reshape(-1)), values.shape[1])
    return pa.array(values)


def send_lines(client: httpx.Client, path: str, lines: list[Any], **headers: str) -> httpx.Response:
    """Send values as JSON lines; texts are lines as they are."""
    texts = [each if isinstance(each, str) else json.dumps(each) for each in lines]
    headers = {"content-type": NDJSON, **headers}
    return client.post(path, content="\n".join(texts).encode(), headers=headers)


def stream_of(table: Any, rows: int | None = None) -> bytes:  # noqa: ANN401 (of pyarrow)
    """Return the Arrow stream of a table, in record batches of so many rows."""
    import pyarrow as pa  # noqa: PLC0415 (as above)

    file = io.BytesIO()
    with pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return file.getvalue()


def send_arrow(
    client: httpx.Client,
    path: str,
    request: Mapping[str, Any],
    data: Any,  # noqa: ANN401 (a table, or bytes)
    **headers: str,
) -> httpx.Response:
    """Send a table, or bytes instead of one."""
    content = data if isinstance(data, bytes) else stream_of(data)
    parameters = {"request": json.dumps(request)}
    return client.post(
        path, params=parameters, content=content, headers={"content-type": ARROW, **headers}
    )


def state_of(response: httpx.Response) -> Summary:
    """Return the summary of an answer's state."""
    assert response.status_code == 200, response.text
    return Summary.from_bytes(b64decode(response.json()["state"]))


def comparison_of(response: httpx.Response) -> Comparison:
    """Return the comparison of an answer's state."""
    assert response.status_code == 200, response.text
    return Comparison.from_bytes(b64decode(response.json()["state"]))


def violations(response: httpx.Response, status: int = 400) -> list[str]:
    """Return the paths of the violations of a problem."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    return [each["field"] for each in response.json()["violations"]]


def is_within(part: Any, whole: Any) -> bool:  # noqa: ANN401 (JSON)
    """Return whether some JSON has all that other JSON has; lists have the same length."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(
            name in whole and is_within(each, whole[name]) for name, each in part.items()
        )
    if isinstance(part, list):
        return len(part) == len(whole) and all(map(is_within, part, whole))
    return bool(part == whole)
