"""Files in an object store are read by their URIs."""

import os
import pickle
from collections.abc import Iterator
from urllib.parse import quote

import pyarrow as pa
import pyarrow.dataset
import pyarrow.fs
import pyarrow.parquet
import pytest
from moto.server import ThreadedMotoServer

from losswire.client._data.partitions import partitions_of, read_partition
from losswire.client._data.read import read_batches
from tests.client.data.samples import EXPECTED, INPUT, WANTED, rows_of, table

_KEYS = {"a/1.parquet": (0, 3), "b/2.parquet": (3, 7)}


@pytest.fixture(scope="module")
def query() -> Iterator[str]:
    """A store with the bucket `data`; the parameters of a URI that lead to it."""
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    store = pa.fs.S3FileSystem(
        access_key="id",
        secret_key="key",  # noqa: S106 - the store takes any
        endpoint_override=f"{host}:{port}",
        scheme="http",
        allow_bucket_creation=True,
    )
    store.create_dir("data")
    for key, (start, stop) in _KEYS.items():
        rows = table().slice(start, stop - start)
        pa.parquet.write_table(rows, f"data/run 1/{key}", filesystem=store, row_group_size=2)
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(zip(names, ("id", "key"), strict=True))
    yield f"?scheme=http&endpoint_override={quote(f'{host}:{port}')}&region=us-east-1"
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})
    server.stop()


@pytest.mark.parametrize("path", ["run 1", "run 1/", "run 1/*/*.parquet", "run 1/**/[0-9].parquet"])
def test_a_bucket_is_read_like_a_folder(query: str, path: str) -> None:
    """The keys of partitions are whole URIs, without the parameters."""
    batches = list(read_batches(f"s3://data/{path}{query}", WANTED))
    assert rows_of(batches) == EXPECTED
    keys = [f"s3://data/run 1/{key}" for key in _KEYS]
    assert list(dict.fromkeys(batch.partition for batch in batches)) == keys
    assert {batch.total_rows for batch in batches} == {7}


def test_files_and_partitions(query: str) -> None:
    """Single files and row groups are read, too."""
    [part, last] = partitions_of(f"s3://data/run 1/a/1.parquet{query}", 2)
    assert (part.key, part.rows, last.rows) == ("s3://data/run 1/a/1.parquet", 2, 1)
    sent = pickle.loads(pickle.dumps(last))  # noqa: S301 - its own
    assert rows_of(read_partition(sent, WANTED))["name"] == ["c"]


def test_a_dataset_of_a_store_has_the_same_keys(query: str) -> None:
    """A dataset with a file system of the caller's is read as it is."""
    store, _ = pa.fs.FileSystem.from_uri(f"s3://data{query}")
    data = pa.dataset.dataset("data/run 1", filesystem=store)
    batches = list(read_batches(data, WANTED))
    assert rows_of(batches) == EXPECTED
    assert {batch.partition for batch in batches} == {f"s3://data/run 1/{key}" for key in _KEYS}


def test_errors_show_no_secret(query: str) -> None:
    """Neither access keys nor parameters are in an error or in a key."""
    with pytest.raises(ValueError, match=r'^s3://data/run 1/a/1\.parquet: no column "x"'):
        list(read_batches(f"s3://id:key@data/run 1/a/1.parquet{query}", INPUT))
    with pytest.raises(FileNotFoundError) as missing:
        read_batches(f"s3://id:s3cret@data/none.parquet{query}", INPUT)
    assert str(missing.value) == 'there is no file or folder "s3://data/none.parquet"'
    with pytest.raises(ValueError, match="cannot be opened") as wrong:
        read_batches("s3://id:s3cret@data/x.parquet?no_such_parameter=1", INPUT)
    assert "s3cret" not in str(wrong.value)
    assert str(wrong.value).startswith('"s3://data/x.parquet" cannot be opened: ')
