"""Builds the image of the Dockerfile on a machine that has neither a container engine nor a registry.

buildah runs every stage but the first as it stands. The base image is what mmdebstrap makes of the same
distribution, under the name that the Dockerfile says; the stage that compiles is stood in for by the
program that cargo has just built with the same profile. So what is not looked at here is the compiling
inside of the official Rust image: the hosted workflow does that with Docker.
"""

import json
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "datahub-gateway" / "image"
SUITE = "bookworm"
BASE = f"docker.io/library/debian:{SUITE}-slim"
# Security updates come with the image's own apt-get; a base of last month only makes it fetch more.
BASE_LASTS = 30 * 24 * 3600


@dataclass(frozen=True)
class Image:
    """An image that was built: as layers in an OCI layout, and unpacked."""

    layout: Path
    bundle: Path

    @property
    def rootfs(self) -> Path:
        """Its files."""
        return self.bundle / "rootfs"

    @property
    def manifest(self) -> dict[str, Any]:
        """What a registry would be sent first."""
        index = json.loads((self.layout / "index.json").read_text())
        return self._blob(index["manifests"][0]["digest"])

    @property
    def config(self) -> dict[str, Any]:
        """What an engine reads: user, entry point, labels."""
        return self._blob(self.manifest["config"]["digest"])

    @property
    def compressed(self) -> int:
        """Bytes that a registry keeps, and a starting task fetches."""
        return sum(layer["size"] for layer in self.manifest["layers"])

    def _blob(self, digest: str) -> dict[str, Any]:
        return json.loads((self.layout / "blobs" / digest.replace(":", "/")).read_text())


def build(gateway: Path, revision: str) -> Image:
    """Builds it anew around the program `gateway`, in the cache folder."""
    work = CACHE / "work"
    shutil.rmtree(work, ignore_errors=True)
    stage = work / "compile" / "out"
    stage.mkdir(parents=True)
    shutil.copy2(gateway, stage / "gateway")
    import_base(work)
    buildah(
        work,
        "bud",
        "--pull=never",
        "--format=docker",
        f"--build-context=compile={work / 'compile'}",
        "--build-arg=VERSION=0.1.0",
        f"--build-arg=REVISION={revision}",
        "--tag=datahub-gateway:test",
        str(ROOT),
    )
    layout, bundle = work / "layout", work / "bundle"
    buildah(work, "push", "--format=oci", "datahub-gateway:test", f"oci:{layout}:test")
    subprocess.run(["umoci", "unpack", "--image", f"{layout}:test", str(bundle)], check=True)
    # Layers of the base and of each stage, uncompressed.
    shutil.rmtree(work / "storage")
    return Image(layout, bundle)


def import_base(work: Path) -> None:
    """Puts the base image into the storage of this build."""
    tar = CACHE / f"debian-{SUITE}.tar"
    if not tar.exists() or time.time() - tar.stat().st_mtime > BASE_LASTS:
        fresh = tar.with_suffix(".new")
        include = "--include=ca-certificates,binutils"
        make = ["mmdebstrap", "--quiet", "--variant=minbase", "--format=tar", include, SUITE, str(fresh)]
        subprocess.run(make, check=True)
        fresh.rename(tar)
    container = buildah(work, "from", "scratch")
    buildah(work, "add", container, str(tar), "/")
    buildah(work, "commit", "--rm", container, BASE)


def buildah(work: Path, *arguments: str) -> str:
    """Runs buildah on a storage of its own; what it printed last."""
    storage = [f"--root={work / 'storage'}", f"--runroot={work / 'run'}", "--storage-driver=vfs"]
    done = subprocess.run(
        ["buildah", *storage, *arguments],
        env={**os.environ, "BUILDAH_ISOLATION": "chroot"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout.strip().rsplit("\n", 1)[-1]
