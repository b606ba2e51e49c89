"""Takes the pictures of the documentation: docs/images/console-*.png.

The tests of the console take them; here they are made small, so that a checkout stays so.

Usage, from the root of the repository: python -m tools.screenshots
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from PIL import Image

ROOT: Final = Path(__file__).resolve().parent.parent
IMAGES: Final = ROOT / "docs" / "images"

MOST_BYTES: Final = 150_000
"""The size of a picture that is still small."""

_COLOURS: Final = 128
"""How many colours are kept: what is drawn has few, and text has shades of one."""


def main() -> int:
    """Run the tests that take pictures, and copy these; returns the exit status."""
    with tempfile.TemporaryDirectory(prefix="losswire-pictures-") as folder:
        ran = subprocess.run(
            [sys.executable, "-m", "pytest", "--quiet", "tests/console/test_pictures.py"],
            cwd=ROOT,
            env={**os.environ, "LOSSWIRE_SCREENSHOTS": folder, "LOSSWIRE_REQUIRE_BROWSER": "1"},
            check=False,
        )
        if ran.returncode:
            return ran.returncode
        IMAGES.mkdir(exist_ok=True)
        for path in sorted(Path(folder).glob("console-*.png")):
            small = IMAGES / path.name
            size = reduce(path, small)
            print(f"{small.relative_to(ROOT)} {size:,} bytes")
            if size > MOST_BYTES:
                print(f"{small.name} is larger than {MOST_BYTES:,} bytes", file=sys.stderr)
                return 1
    return 0


def reduce(path: Path, to: Path) -> int:
    """Write a picture with fewer colours; returns how many bytes it has."""
    with Image.open(path) as picture:
        few = picture.convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE)
        few.save(to, optimize=True)
    return to.stat().st_size


if __name__ == "__main__":
    sys.exit(main())
