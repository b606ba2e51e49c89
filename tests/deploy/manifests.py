"""What kustomize makes of deploy/kubernetes."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
KUBERNETES = ROOT / "deploy/kubernetes"
BASE = KUBERNETES / "base"
OVERLAYS = sorted(path.name for path in (KUBERNETES / "overlays").iterdir())
COMPONENTS = sorted(path.name for path in (KUBERNETES / "components").iterdir())


def resources_in(path: Path) -> list[dict[str, Any]]:
    """Return the resources of a file."""
    return list(yaml.safe_load_all(path.read_text("utf-8")))


def of_base(kind: str) -> dict[str, Any]:
    """Return the only resource of a kind, as the base has it."""
    [found] = [
        each for path in BASE.glob("*.yaml") for each in resources_in(path) if each["kind"] == kind
    ]
    return found


def build(folder: Path, overlay: str, components: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Build an overlay, with some components; skips the test without kustomize."""
    command = _kustomize()
    copied = folder / "kubernetes"
    shutil.copytree(KUBERNETES, copied)
    settings = copied / "overlays" / overlay / "kustomization.yaml"
    written = yaml.safe_load(settings.read_text("utf-8"))
    written["components"] = [f"../../components/{each}" for each in components]
    settings.write_text(yaml.safe_dump(written), "utf-8")
    ran = subprocess.run(
        [*command, str(settings.parent)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return list(yaml.safe_load_all(ran.stdout))


def only(resources: Sequence[dict[str, Any]], kind: str) -> dict[str, Any]:
    """Return the only resource of a kind."""
    [found] = [each for each in resources if each["kind"] == kind]
    return found


def _kustomize() -> list[str]:
    for name, *arguments in (["kubectl", "kustomize"], ["kustomize", "build"]):
        executable = shutil.which(name)
        if executable is not None:
            return [executable, *arguments]
    pytest.skip("needs kubectl or kustomize")
