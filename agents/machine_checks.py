"""What `citybrain doctor` looks at on its own machine: disks, limits, libraries, the processor."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import tempfile
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import llvmlite.binding  # type: ignore[import-untyped]
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import streams
from agents.finding import Finding, fault, ok, warning

DISTRIBUTION = "city-brain-streams"

_LEAST_FILES = 256
_GOOD_FILES = 1024
_LEAST_MEMORY_BYTES = 1 << 30
_PLENTY = 5
"""Below so many times the least free space it is a warning."""
_ENGINE_NEEDS = {"x86_64": "sse4.2", "aarch64": "lse"}
"""What the embedded ClickHouse's builds take for granted, in LLVM's words; without it a process dies at once."""


def kernel_folder() -> Path:
    """Where the compiled kernels are kept: beside their source, unless numba is told otherwise."""
    elsewhere = os.environ.get("NUMBA_CACHE_DIR")
    return Path(elsewhere) if elsewhere else Path(streams.__path__[0]) / "__pycache__"


def check_disk(folders: Iterable[tuple[str, Path]], least_free_bytes: int) -> list[Finding]:
    """Whether there is room where the folders (what for, path) and temporary files are or will be.

    Also whether they may be written.  Folders of one file system are told together.
    """
    findings = []
    folders = list(folders)
    try:
        folders.append(("temporary files", Path(tempfile.gettempdir())))
    except FileNotFoundError:
        findings.append(
            fault("disk", "no folder for temporary files can be written", "make /tmp writable, or set TMPDIR")
        )
    uses_of_device: dict[int, list[str]] = {}
    free_of_device: dict[int, tuple[int, Path]] = {}
    for use, folder in folders:
        place = _nearest(folder)
        if not os.access(place, os.W_OK | os.X_OK):
            what = f"{folder} ({use}) cannot be written by user {os.getuid()}"
            findings.append(warning("disk", what, "give it to the worker's user, or name another folder"))
        device = place.stat().st_dev
        uses_of_device.setdefault(device, []).append(use)
        free_of_device.setdefault(device, (shutil.disk_usage(place).free, place))
    roomy = []
    for device, (free_bytes, place) in free_of_device.items():
        what = f"{_size(free_bytes)} free at {place} ({', '.join(uses_of_device[device])})"
        if free_bytes < least_free_bytes:
            findings.append(fault("disk", f"only {what}", "make room there, or name folders on another disk"))
        elif free_bytes < _PLENTY * least_free_bytes:
            findings.append(warning("disk", f"only {what}", "make room there before it is full"))
        else:
            roomy.append(what)
    return findings or [ok("disk", "; ".join(roomy))]


def check_limits() -> list[Finding]:
    """Whether enough files may be open at once."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    what = "any number of files may be open" if files == resource.RLIM_INFINITY else f"{files:,} files may be open"
    remedy = f"raise it to {_GOOD_FILES:,} or more: ulimit -n, LimitNOFILE= in a unit, ulimits: in a compose file"
    if files != resource.RLIM_INFINITY and files < _GOOD_FILES:
        return [(fault if files < _LEAST_FILES else warning)("limits", f"only {what}", remedy)]
    return [ok("limits", what)]


def check_libraries() -> list[Finding]:
    """Whether Python and the libraries are the versions that this service was made for."""
    python = platform.python_version()
    try:
        installed = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return [warning("libraries", f"{DISTRIBUTION} is not installed, only its source is here", "run `make install`")]
    findings = []
    wanted = installed.metadata["Requires-Python"]
    if wanted and not SpecifierSet(wanted).contains(python, prereleases=True):
        findings.append(fault("libraries", f"Python is {python}, not {wanted}", "run `make install` with that Python"))
    needed = [Requirement(text) for text in installed.requires or []]
    needed = [each for each in needed if each.marker is None or each.marker.evaluate({"extra": ""})]
    for each in needed:
        try:
            found = metadata.version(each.name)
        except metadata.PackageNotFoundError:
            findings.append(fault("libraries", f"{each.name} is not installed", "run `make install`"))
            continue
        if not each.specifier.contains(found, prereleases=True):
            what = f"{each.name} is {found}, not {each.specifier}"
            findings.append(fault("libraries", what, "run `make install`"))
    what = f"{DISTRIBUTION} {installed.version}, Python {python}, {len(needed)} libraries as they should be"
    return findings or [ok("libraries", what)]


def check_processor(*, has_embedded_engine: bool) -> list[Finding]:
    """Whether kernels and the embedded ClickHouse run on this processor, and whether there is memory for them."""
    machine = platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    findings = []
    need = _ENGINE_NEEDS.get(machine)
    has_need = need is not None and llvmlite.binding.get_host_cpu_features().get(need, False)
    if need is not None and not has_need:
        what = f"the processor has no {need.upper()}, which the embedded ClickHouse needs"
        remedy = "use a ClickHouse server, or another machine; in a virtual one, pass the host's processor through"
        findings.append((fault if has_embedded_engine else warning)("processor", what, remedy))
    if memory_bytes < _LEAST_MEMORY_BYTES:
        what = f"the machine has {_size(memory_bytes)} of memory"
        findings.append(warning("processor", what, f"give it {_size(_LEAST_MEMORY_BYTES)} or more for a worker"))
    features = f" with {need.upper()}" if need else ""
    what = f"{cores} × {machine} {llvmlite.binding.get_host_cpu_name()}{features}, {_size(memory_bytes)} of memory"
    return findings or [ok("processor", what)]


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    folder = folder.absolute()
    return next(each for each in (folder, *folder.parents) if each.exists())


def _size(count: int) -> str:
    return f"{count / (1 << 30):,.1f} GB" if count >= 1 << 30 else f"{count / (1 << 20):,.0f} MB"
