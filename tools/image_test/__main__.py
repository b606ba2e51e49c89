"""Builds the image, runs docker-compose.yml with it, and checks what operators rely on.

Needs root and Linux, no container engine that runs already and no image registry: where none
answers, debootstrap makes the base image. Everything lives in a temporary directory and in mount
and network namespaces of its own, so other containers, ports and firewall rules are not touched.

`make image-test` runs it; WHEELS=DIR takes torch from a folder of wheels.
Exits with 0 when all is well, 1 when a check fails, 2 when a tool is missing.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from tools.image_test.checks import check_alone, check_container, check_smoke, check_stop
from tools.image_test.compose import compose_up
from tools.image_test.engine import (
    CLONE_NEWNET,
    CLONE_NEWNS,
    prepare_engine,
    require_tools,
    unmount_below,
    unshare,
)
from tools.image_test.image import build, provide_base
from tools.image_test.report import MissingToolError, Report, StepError


def main() -> int:
    """Run the whole test; return the exit status."""
    parser = argparse.ArgumentParser(description="Build and run the containers, and check them.")
    add = parser.add_argument
    add("--wheels", type=Path, metavar="DIR", help="a folder with the wheel of torch")
    add(
        "--ca",
        type=Path,
        default=os.environ.get("PIP_CERT"),
        metavar="FILE",
        help="certificates that pip trusts in the build; default: $PIP_CERT",
    )
    add(
        "--build-arg",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="passed to the build; may be repeated",
    )
    options = parser.parse_args()
    report = Report()
    try:
        # The name is short because the path of a container's control socket must be.
        with tempfile.TemporaryDirectory(prefix="lw-", ignore_cleanup_errors=True) as scratch:
            run_all(options, Path(scratch), report)
    except MissingToolError as error:
        print(f"image-test: {error}", file=sys.stderr)
        return 2
    except StepError as error:
        print(f"image-test: {error}", file=sys.stderr)
        return 1
    if report.failures:
        print(f"image-test: wrong: {', '.join(report.failures)}", file=sys.stderr)
        return 1
    print("image-test: everything is as it should be")
    return 0


def run_all(options: argparse.Namespace, scratch: Path, report: Report) -> None:
    """Prepare, build, run."""
    print("tools", flush=True)
    require_tools(report)
    unshare(CLONE_NEWNS)
    try:
        engine = prepare_engine(scratch, report)
        print("build", flush=True)
        provide_base(engine, scratch, report)
        build(engine, options, report)
        unshare(CLONE_NEWNET)
        engine.must("ip", "link", "set", "lo", "up")
        print("run", flush=True)
        # Starting is mostly work of one CPU, so its time means little on a busy machine.
        report.say("machine", f"{os.cpu_count()} CPUs, load average {os.getloadavg()[0]:.1f}")
        with compose_up(engine, report) as container:
            check_container(engine, container, report)
            check_smoke(engine, report)
            check_stop(engine, container, report)
        check_alone(engine, report)
    finally:
        unmount_below(scratch)


if __name__ == "__main__":
    sys.exit(main())
