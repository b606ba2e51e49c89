"""Builds the image, on its base image or one like it."""

import argparse
import re
import shutil
import time
from pathlib import Path

from tools.image_test.compose import IMAGE
from tools.image_test.engine import ROOT, Engine, require
from tools.image_test.report import Report, StepError

# Files that the official slim images leave out; the replacement leaves them out, too.
SLIM = """\
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/info/*
path-exclude /usr/share/lintian/*
path-exclude /usr/share/locale/*
path-exclude /usr/share/man/*
"""
SLIM_FOLDERS = ("info", "lintian", "locale", "man")


def provide_base(engine: Engine, scratch: Path, report: Report) -> None:
    """Pull the Dockerfile's base image, or make it where no registry answers."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    found = re.search(r"^ARG BASE_IMAGE=(\S+:(\w+)-slim)$", text, re.MULTILINE)
    if found is None:
        raise StepError("the Dockerfile names no BASE_IMAGE such as debian:bookworm-slim")
    name, suite = found.groups()
    if engine.run("podman", "pull", "--quiet", name).status == 0:
        report.say("base image", f"{name}, from its registry")
        return
    started = time.monotonic()
    base = scratch / "base"
    engine.must(require("debootstrap"), "--variant=minbase", suite, str(base), timeout=900)
    (base / "etc/dpkg/dpkg.cfg.d/docker").write_text(SLIM, encoding="utf-8")
    sources = base / "etc/apt/sources.list"
    # The mirror is debootstrap's default.
    mirror = sources.read_text("utf-8").split()[1]
    sources.write_text(
        f"deb {mirror} {suite} main\n"
        f"deb {mirror} {suite}-updates main\n"
        f"deb {mirror}-security {suite}-security main\n",
        encoding="utf-8",
    )
    for folder in SLIM_FOLDERS:
        shutil.rmtree(base / "usr/share" / folder, ignore_errors=True)
    for path in (base / "usr/share/doc").rglob("*"):
        if path.name != "copyright" and not path.is_dir():
            path.unlink()
    for folder in ("var/cache/apt", "var/lib/apt/lists"):
        shutil.rmtree(base / folder)
        (base / folder).mkdir()
    archive = scratch / "base.tar"
    engine.must("tar", "--numeric-owner", "-C", str(base), "-cf", str(archive), ".")
    engine.must("podman", "import", "--change", "CMD=/bin/bash", str(archive), name)
    shutil.rmtree(base)
    archive.unlink()
    took = time.monotonic() - started
    report.say("base image", f"{name}: no registry answers, made with debootstrap in {took:.0f} s")


def build(engine: Engine, options: argparse.Namespace, report: Report) -> None:
    """Build the image as docker-compose.yml would."""
    command = ["buildah", "bud", "--isolation", "chroot", "--format", "docker", "--tag", IMAGE]
    if options.wheels:
        command += ["--build-context", f"wheels={options.wheels.resolve()}"]
    if options.ca:
        command += ["--secret", f"id=ca,src={options.ca}"]
    for argument in options.build_arg:
        command += ["--build-arg", argument]
    started = time.monotonic()
    engine.must(*command, str(ROOT), timeout=3600)
    report.say("built", f"{IMAGE} in {time.monotonic() - started:.0f} s")
    size = engine.must("podman", "image", "inspect", "--format", "{{.Size}}", IMAGE).output
    report.say("image size", f"{int(size) / 1e6:.0f} MB")
    for folder, megabytes in image_parts(engine):
        report.say("", f"{megabytes:>4.0f} MB {folder}")


def image_parts(engine: Engine) -> list[tuple[str, float]]:
    """Measure what the image consists of, largest first."""
    made = engine.must("buildah", "from", "--pull-never", IMAGE).output.strip()
    root = Path(engine.must("buildah", "mount", made).output.strip())
    packages = next(root.glob("opt/losswire/lib/python3*/site-packages"))
    everything, torch, ours = (folder_size(path) for path in (root, packages / "torch", packages))
    parts = {
        "torch": torch,
        "other Python packages": ours - torch,
        "Debian and its Python": everything - ours,
    }
    engine.must("buildah", "rm", made)
    return sorted(parts.items(), key=lambda part: -part[1])


def folder_size(folder: Path) -> float:
    """Add up the files below a folder, in MB."""
    paths = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in paths) / 1e6
