"""What is in the image: little, and nothing that helps whoever gets in."""

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from build import ROOT, Image
from container import USER

MIB = 1024**2
MOST = 60 * MIB
# What belongs to the user of the gateway; all else is root's, and nobody else may write to it.
STATE = {"app/data": 0o700}
OPEN = {"tmp": 0o1777}


def files(image: Image) -> Iterator[tuple[str, os.stat_result]]:
    """Every file and folder, by its path in the image."""
    for folder, folders, names in os.walk(image.rootfs):
        for name in [*folders, *names]:
            path = Path(folder, name)
            yield str(path.relative_to(image.rootfs)), path.lstat()


def test_it_is_small(image: Image) -> None:
    sizes = [layer["size"] for layer in image.manifest["layers"]]
    print(f"compressed: {image.compressed / MIB:.1f} MiB in {len(sizes)} layers {sizes}")
    program = (image.rootfs / "usr/local/bin/gateway").stat().st_size
    print(f"the program: {program / MIB:.1f} MiB")
    assert image.compressed <= MOST


def test_there_is_one_program_and_no_shell(image: Image) -> None:
    programs = [
        path
        for path, about in files(image)
        if stat.S_ISREG(about.st_mode) and about.st_mode & 0o111 and ".so" not in path
    ]
    assert programs == ["usr/local/bin/gateway"]


def test_nothing_gains_rights_and_only_the_store_is_writable(image: Image) -> None:
    for path, about in files(image):
        mode = stat.S_IMODE(about.st_mode)
        if path in STATE:
            assert (about.st_uid, about.st_gid, mode) == (USER, USER, STATE[path]), path
            continue
        assert (about.st_uid, about.st_gid) == (0, 0), path
        if path in OPEN:
            assert mode == OPEN[path], path
        elif not stat.S_ISLNK(about.st_mode):
            assert mode & 0o7022 == 0, f"{path} {mode:o}"
            assert mode & 0o444 == 0o444, f"{path} cannot be read by the gateway"


def test_it_has_all_of_conf_and_the_certificates(image: Image) -> None:
    shipped = subprocess.run(
        ["diff", "-r", str(ROOT / "conf"), str(image.rootfs / "app/conf")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert shipped.returncode == 0, shipped.stdout
    authorities = (image.rootfs / "etc/ssl/certs/ca-certificates.crt").read_text()
    assert authorities.count("BEGIN CERTIFICATE") > 100


def test_scanners_and_lawyers_find_what_they_look_for(image: Image) -> None:
    stanzas = (image.rootfs / "var/lib/dpkg/status").read_text().strip().split("\n\n")
    packages = {stanza.split("\n", 1)[0]: stanza.split("\n") for stanza in stanzas}
    for package in ["libc6", "libgcc-s1", "ca-certificates"]:
        assert "Status: install ok installed" in packages[f"Package: {package}"]
        assert (image.rootfs / f"usr/share/doc/{package}/copyright").stat().st_size > 0
    assert "VERSION_ID=" in (image.rootfs / "etc/os-release").read_text()
    assert (image.rootfs / "usr/share/doc/datahub-gateway/LICENSE").exists()
    labels = image.config["config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == "0.1.0"
    assert labels["org.opencontainers.image.revision"] not in ("", "unknown")


def test_the_program_has_no_symbols_and_all_its_libraries(image: Image) -> None:
    sections = subprocess.run(
        ["readelf", "--wide", "--sections", str(image.rootfs / "usr/local/bin/gateway")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert ".debug_info" not in sections and ".symtab" not in sections
    [loader] = image.rootfs.glob("lib*/ld-linux*")
    loader = loader.relative_to(image.rootfs)
    listed = subprocess.run(
        ["chroot", str(image.rootfs), f"/{loader}", "--list", "/usr/local/bin/gateway"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "not found" not in listed.stdout


@pytest.mark.parametrize("part", ["User", "ExposedPorts", "StopSignal", "Entrypoint", "Cmd", "WorkingDir"])
def test_an_engine_is_told(image: Image, part: str) -> None:
    expected = {
        "User": f"{USER}:{USER}",
        "ExposedPorts": {"3000/tcp": {}},
        "StopSignal": "SIGTERM",
        "Entrypoint": ["/usr/local/bin/gateway"],
        "Cmd": ["run"],
        "WorkingDir": "/app",
    }
    assert image.config["config"][part] == expected[part]
