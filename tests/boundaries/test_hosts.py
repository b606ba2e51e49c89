"""Packages come from where pip, npm and apt are set up to look: no file names a host of theirs."""

import re
import subprocess
from pathlib import Path

_ROOT = Path(__file__).parents[2]

# In two parts, so that this file does not name them either.
_HOSTS = re.compile(
    "|".join(
        rf"{name}\.{domain}"
        for name, domain in (
            ("pypi", "org"),
            ("pythonhosted", "org"),
            ("npmjs", "(com|org)"),
            ("yarnpkg", "com"),
            ("deb", "debian.org"),
            ("security", "debian.org"),
            ("archive", "ubuntu.com"),
            ("download", "pytorch.org"),
            ("proxy", "golang.org"),
        )
    )
)


def test_no_file_names_a_package_registry() -> None:
    """Lock files, build files and pages leave the choice of the registry to the tools."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],  # noqa: S607
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    paths = [_ROOT / name for name in listed if name and "third_party" not in name]
    assert len(paths) > 300, "the files were not found"
    found = {
        str(path.relative_to(_ROOT)): match[0]
        for path in paths
        if path.is_file() and (match := _HOSTS.search(path.read_text("utf-8", "replace")))
    }
    assert found == {}
