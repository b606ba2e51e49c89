"""The arrows between the layers are client -> proto <- server, and nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest

import losswire
from tests.boundaries.layers import LAYERS, Breach, breaches

_ROOT = Path(__file__).parents[2]


def test_no_boundary_is_crossed() -> None:
    """The whole tree: imports, the open namespace, no assert as a guard, no code from data."""
    assert breaches(_ROOT) == []


def test_every_layer_is_looked_at() -> None:
    """Each folder has sources of its packages, so that the test above sees something."""
    for layer, packages in LAYERS.items():
        for package in packages:
            folder = _ROOT / layer / "src" / package.replace(".", "/")
            assert list(folder.glob("*.py")), folder


def _tree(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


_PROTO = "proto/src/losswire/wire/_a.py"
_CLIENT = "client/src/losswire/client/_a.py"
_SERVER = "server/src/losswire/server/a.py"

CROSSINGS: tuple[tuple[str, str, list[str]], ...] = (
    (_CLIENT, "from losswire.wire import x", []),
    (_SERVER, "from losswire.v1 import x_pb2\nimport losswire.server.b", []),
    (_SERVER, "import torch\nimport re\nre.compile('x')\nmodel.eval()", []),
    (_PROTO, "from losswire.wire._b import x\nfrom . import _c\nimport numpy", []),
    (_PROTO, "import torch", ["imports torch"]),
    (_PROTO, "from losswire.server.app import App", ["imports losswire.server.app.App"]),
    (_PROTO, "from losswire import client", ["imports losswire.client"]),
    (_PROTO, "from ..client import x", ["imports losswire.client.x"]),
    (_CLIENT, "import losswire.server", ["imports losswire.server"]),
    (_CLIENT, "def f():\n    from torch.nn import functional", ["imports torch.nn.functional"]),
    (_CLIENT, "if TYPE_CHECKING:\n    import torch", ["imports torch"]),
    (_SERVER, "import losswire.client as c", ["imports losswire.client"]),
    ("client/src/losswire/client/torch.py", "import torch\nfrom torch import nn", []),
    (
        "client/src/losswire/client/torch.py",
        "import torch\nimport pickle",
        ["imports pickle"],
    ),
    (
        _CLIENT,
        "from losswire.client.torch import RemoteLoss",
        ["imports losswire.client.torch.RemoteLoss, which is optional"],
    ),
    (_SERVER, "import pickle", ["imports pickle"]),
    (_SERVER, "from cloudpickle import loads", ["imports cloudpickle.loads"]),
    (_SERVER, "eval('1')\nexec('2')", ["calls eval", "calls exec"]),
    (_SERVER, "torch.load(f)\nnp.load(f)", ["calls np.load", "calls torch.load"]),
    (_CLIENT, "np.load(f, allow_pickle=False)", []),
    (_CLIENT, "np.load(f, allow_pickle=True)", ["calls np.load"]),
    (_SERVER, "assert x", ["guards with assert, which -O removes"]),
    ("proto/src/losswire/v1/a_pb2.py", "assert x", []),
    ("proto/src/losswire/__init__.py", "", ["closes the namespace losswire"]),
    (
        "client/src/losswire/server/a.py",
        "",
        ["losswire.server does not belong to client"],
    ),
)


@pytest.mark.parametrize(("path", "text", "expected"), CROSSINGS)
def test_crossings_are_found(tmp_path: Path, path: str, text: str, expected: list[str]) -> None:
    """The test above can fail: each kind of crossing is found, and what is right is not."""
    _tree(tmp_path, {path: text})
    assert breaches(tmp_path) == [Breach(path, what) for what in expected]


def test_the_namespace_is_open() -> None:
    """`losswire` is no module of anyone: the three distributions share it."""
    assert getattr(losswire, "__file__", None) is None
    assert list(_ROOT.glob("*/src/losswire/__init__.py")) == []


_WITHOUT_TORCH = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {refused}:
            raise ImportError(name + " is refused here")

sys.meta_path.insert(0, Refuse())
import {imported}
assert "torch" not in sys.modules
"""


def _import_without(imported: str, *refused: str) -> "subprocess.CompletedProcess[str]":
    """Import something in a process in which other modules cannot be imported."""
    code = _WITHOUT_TORCH.format(imported=imported, refused=set(refused))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("package", [*LAYERS["proto"], *LAYERS["client"]])
def test_contract_and_sdk_work_without_torch(package: str) -> None:
    """They are imported in a process in which torch cannot be."""
    done = _import_without(package, "torch")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_codec_needs_no_grpc() -> None:
    """To read messages from a file, numpy and protobuf are enough."""
    done = _import_without("losswire.wire", "torch", "grpc")
    assert (done.returncode, done.stderr) == (0, "")


def test_refusing_works() -> None:
    """The server, which needs torch, cannot be imported in that process."""
    done = _import_without("losswire.server.app", "torch")
    assert done.returncode == 1
    assert "torch is refused here" in done.stderr


def test_generated_files_import_by_the_path_of_their_package() -> None:
    """Import path, proto package and directory are one: no generated import was rewritten."""
    folder = _ROOT / "proto/src/losswire/v1"
    protos = {path.stem for path in folder.glob("*.proto")}
    assert protos == {path.stem.removesuffix("_pb2") for path in folder.glob("*_pb2.py")}
    for path in folder.glob("*.proto"):
        text = path.read_text()
        assert "package losswire.v1;" in text
        generated = (folder / f"{path.stem}_pb2.py").read_text()
        assert f"# source: losswire/v1/{path.name}" in generated
        for name in protos:
            if f'import "losswire/v1/{name}.proto";' in text:
                assert f"from losswire.v1 import {name}_pb2 as" in generated
