"""pyarrow datasets and their fragments as files."""

from typing import Any, Final

from losswire.client._data.files import files_of, is_path
from losswire.client._data.formats import File
from losswire.summaries.columns.arrow import pyarrow

_SCHEMES: Final = {"s3": "s3://", "gcs": "gs://", "abfs": "abfs://"}


def files_in(data: Any) -> list[File] | None:
    """Return the files that data consists of; None where it is not made of files.

    Raises as `files_of` does.
    """
    if is_path(data):
        return files_of([data])
    if isinstance(data, (list, tuple)) and data:
        if all(map(is_path, data)):
            return files_of(data)
        return [_file_of(each) for each in data] if all(map(_is_fragment, data)) else None
    if _is_fragment(data):
        return [_file_of(data)]
    if is_dataset(data) and hasattr(data, "files") and not _is_filtered(data):
        return [_file_of(each) for each in data.get_fragments()]
    return None


def is_dataset(value: Any) -> bool:
    """Return whether a value is a pyarrow dataset."""
    return _is_of_pyarrow(value) and hasattr(value, "get_fragments")


def is_scanner(value: Any) -> bool:
    """Return whether a value is a scanner of a pyarrow dataset."""
    return _is_of_pyarrow(value) and hasattr(value, "projected_schema")


def _is_fragment(value: Any) -> bool:
    return (
        _is_of_pyarrow(value)
        and hasattr(value, "partition_expression")
        and hasattr(value, "physical_schema")
    )


def _is_of_pyarrow(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "pyarrow"


def _is_filtered(dataset: Any) -> bool:
    # A dataset that `filter` returned is of the same class; its fragments do not know the filter.
    return bool(getattr(dataset, "_scan_options", None))


def _file_of(fragment: Any) -> File:
    """Return the file of a fragment; other formats than Parquet keep the dataset's options."""
    is_parquet = fragment.format.default_extname == "parquet"
    keys = pyarrow("dataset").get_partition_keys(fragment.partition_expression)
    return File(
        path=fragment.path,
        key=_SCHEMES.get(fragment.filesystem.type_name, "") + fragment.path,
        kind="parquet" if is_parquet else "fragment",
        filesystem=None if fragment.filesystem.type_name == "local" else fragment.filesystem,
        constants={
            name: value if value is None or isinstance(value, int) else str(value)
            for name, value in keys.items()
        },
        fragment=fragment,
    )
