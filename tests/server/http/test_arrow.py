"""Arrow streams: types that are read as the SDK reads them, and those that are refused."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from losswire.client import Client
from tests.support.http_door import Door, open_door
from tests.support.http_summaries import send_arrow, state_of, stream_of, violations

pa = pytest.importorskip("pyarrow")

_N = 50
_DRAW = np.random.default_rng(2)
_X = _DRAW.standard_normal((_N, 3)).astype(np.float32)
_Y = _DRAW.integers(0, 3, _N)
_REQUEST: dict[str, Any] = {"loss": "cross_entropy", "slices": ["c"], "partition": "p"}
_FLAT = pa.array(_X.reshape(-1))
_TEXTS = pa.array([["DE", "FR"][each % 2] for each in range(_N)])
_PLAIN = {"input": pa.FixedSizeListArray.from_arrays(_FLAT, 3), "target": _Y, "c": _TEXTS}


def _send(door: Door, columns: dict[str, Any], rows: int | None = None) -> Any:  # noqa: ANN401 (a response)
    data = stream_of(pa.table(columns), rows)
    return send_arrow(door.client, "/v1/summarize", _REQUEST, data)


_TYPES: dict[str, dict[str, Any]] = {
    "lists of any length": {"input": pa.array(_X.tolist(), pa.list_(pa.float32()))},
    "large lists": {"input": pa.array(_X.tolist(), pa.large_list(pa.float32()))},
    "tensors": {
        "input": pa.ExtensionArray.from_storage(
            pa.fixed_shape_tensor(pa.float32(), [3]), _PLAIN["input"]
        )
    },
    "small integers": {"target": pa.array(_Y, pa.int8())},
    "unsigned integers": {"target": pa.array(_Y, pa.uint16())},
    "dictionaries": {"c": _TEXTS.dictionary_encode()},
    "large texts": {"c": _TEXTS.cast(pa.large_string())},
    "views of texts": {"c": _TEXTS.cast(pa.string_view())},
    "a large dictionary": {
        "c": pa.DictionaryArray.from_arrays(
            pa.array([each % 2 for each in range(_N)], pa.int16()),
            pa.array(["DE", "FR", *(f"country {each}" for each in range(1000))]),
        )
    },
}


@pytest.mark.parametrize("name", _TYPES)
def test_types_of_columns_are_read(door: Door, name: str) -> None:
    """Whatever wrote the numbers, lists and texts: the state has the same bytes."""
    expected = state_of(_send(door, _PLAIN)).to_bytes()
    assert state_of(_send(door, {**_PLAIN, **_TYPES[name]})).to_bytes() == expected


def test_record_batches_are_the_sdks(door: Door) -> None:
    """Each is a batch, of which the dictionary may change; columns that nothing reads are left."""
    tables = [
        pa.table({**_PLAIN, "c": _TEXTS.dictionary_encode(), "unused": _TEXTS}).slice(begin, 20)
        for begin in (0, 20, 40)
    ]
    with Client(door.child.address) as client:
        expected = client.summarize(
            "cross_entropy",
            [
                {"input": _X[part], "target": _Y[part], "c": _TEXTS.to_pylist()[part]}
                for part in (slice(0, 20), slice(20, 40), slice(40, 60))
            ],
            slices=["c"],
            partition="p",
        )
    data = stream_of(pa.concat_tables(tables), 20)
    response = send_arrow(door.client, "/v1/summarize", _REQUEST, data)
    assert state_of(response) == expected


_REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a null": ({"target": pa.array([None, *_Y[1:].tolist()])}, "rows[0].target"),
    "a null text": ({"c": pa.array(["a"] * (_N - 1) + [None])}, f"rows[{_N - 1}].c"),
    "a null in a list": (
        {"input": pa.array([[1.0, 2.0, 3.0]] * (_N - 1) + [[1.0, None, 3.0]])},
        f"rows[{_N - 1}].input",
    ),
    "uneven lists": (
        {"input": pa.array([[1.0, 2.0]] * (_N - 1) + [[1.0]])},
        'columns["input"]',
    ),
    "texts as numbers": ({"target": _TEXTS}, 'columns["target"]'),
    "floats as slices": ({"c": pa.array(np.full(_N, 0.5))}, 'columns["c"]'),
    "nulls in lists": ({"input": pa.array([[None] * 3] * _N)}, 'columns["input"]'),
    "a dictionary of lists": (
        {
            "input": pa.DictionaryArray.from_arrays(
                pa.array([0] * _N, pa.int8()), pa.array([[1.0, 2.0, 3.0]])
            )
        },
        'columns["input"]',
    ),
    "views of lists": (
        {"input": pa.array(_X.tolist(), pa.list_view(pa.float32()))},
        'columns["input"]',
    ),
    "durations": ({"c": pa.array(np.arange(_N), pa.duration("s"))}, 'columns["c"]'),
}


@pytest.mark.parametrize("name", _REFUSED)
def test_columns_that_cannot_be_read_are_named(door: Door, name: str) -> None:
    """With their row where one is wrong."""
    columns, expected = _REFUSED[name]
    assert violations(_send(door, {**_PLAIN, **columns})) == [expected]


def test_a_column_that_is_there_twice_is_refused(door: Door) -> None:
    """Nobody could say which is meant."""
    table = pa.table(
        [_PLAIN["input"], pa.array(_Y), _TEXTS, _TEXTS], names=["input", "target", "c", "c"]
    )
    response = send_arrow(door.client, "/v1/summarize", _REQUEST, table)
    assert violations(response) == ['columns["c"]']


def test_views_that_repeat_a_text_are_refused(door: Door) -> None:
    """A long text that 50 rows refer to would be 50 texts."""
    long = "x" * 100_000
    views = pa.array([long], pa.string_view())
    row = views.buffers()[1].to_pybytes()
    many = pa.Array.from_buffers(
        pa.string_view(), _N, [None, pa.py_buffer(row * _N), views.buffers()[2]]
    )
    assert violations(_send(door, {**_PLAIN, "c": many})) == ['columns["c"]']


def test_compressed_streams_are_refused(door: Door) -> None:
    """A few bytes could become very many."""
    table = pa.table(_PLAIN)
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    data = sink.getvalue().to_pybytes()
    response = send_arrow(door.client, "/v1/summarize", _REQUEST, data)
    assert violations(response) == ["body"]


def test_rows_without_bytes_are_bounded(door: Door) -> None:
    """A column of nulls has no memory, and may say to have any number of rows."""
    count = (1 << 31) - 1
    nulls = pa.Array.from_buffers(pa.null(), count, [None])
    batch = pa.RecordBatch.from_arrays([nulls], names=["input"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    request = {"loss": "mse_loss", "columns": {"target": "input"}}
    data = sink.getvalue().to_pybytes()
    assert send_arrow(door.client, "/v1/summarize", request, data).status_code == 413


def test_dictionaries_are_not_read_again_without_end(door: Door) -> None:
    """A few bytes of each of many record batches would be a MiB of dictionary each time."""
    words = pa.array([f"{each:01000}" for each in range(1000)])
    column = pa.DictionaryArray.from_arrays(pa.array([0], pa.int32()), words)
    batch = pa.record_batch({"input": pa.array([1.0]), "target": pa.array([1.0]), "c": column})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        for _ in range(800):
            writer.write_batch(batch)
    data = sink.getvalue().to_pybytes()
    response = send_arrow(door.client, "/v1/summarize", _REQUEST, data)
    assert (response.status_code, response.json()["reason"]) == (413, "OVER_LIMIT")
    assert _send(door, {**_PLAIN, "c": _TEXTS.dictionary_encode()}).status_code == 200


def test_damaged_streams_are_refused(door: Door) -> None:
    """At every place, one byte changed or the rest cut off: 200, or a problem of the caller."""
    data = stream_of(pa.table(_PLAIN), 25)
    draw = np.random.default_rng(4)
    for at in draw.integers(0, len(data), 120).tolist():
        changed = bytearray(data)
        changed[at] ^= 1 << int(draw.integers(0, 8))
        for sent in (bytes(changed), data[:at]):
            status = send_arrow(door.client, "/v1/summarize", _REQUEST, sent).status_code
            assert status in (200, 400, 413)
    huge = struct.pack("<iI", -1, 0x7FFFFFF0) + data[8:]
    assert send_arrow(door.client, "/v1/summarize", _REQUEST, huge).status_code == 400


def test_the_request_is_in_the_query(door: Door) -> None:
    """It is missing, no JSON, or no object."""
    data = stream_of(pa.table(_PLAIN))
    headers = {"content-type": "application/vnd.apache.arrow.stream"}
    for query, field in (("", ["request"]), ("?request=%7B", []), ("?request=[]", ["request"])):
        response = door.client.post(f"/v1/summarize{query}", content=data, headers=headers)
        assert violations(response) == field


def test_a_server_without_pyarrow_says_so(tmp_path: Path) -> None:
    """Which extra reads Arrow, and what is read without it."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['pyarrow'] = None\n")
    environment = {"PYTHONPATH": str(tmp_path)}
    with open_door(tmp_path / "log", environment=environment) as door:
        response = send_arrow(door.client, "/v1/summarize", _REQUEST, stream_of(pa.table(_PLAIN)))
        assert response.status_code == 415
        assert "losswire-server[arrow]" in response.json()["detail"]
        assert "application/x-ndjson" in response.json()["detail"]
