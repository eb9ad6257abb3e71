"""Servers that Debian does not install beside Dovecot, unpacked, and mounts that only the fuzzer sees.

Debian's POP3 servers exclude each other, so that ``make pop3-servers`` unpacks them into a folder.
"""

import os
import subprocess
import sys
from pathlib import Path

from ..processes import program, unavailable
from ..proxy import CHECKOUT

FOLDER = Path(os.environ.get("POP3PROXY_SERVERS", CHECKOUT / ".pop3-servers"))
_INSIDE = "POP3PROXY_PRIVATE_MOUNTS"


def unpacked(path: str) -> Path:
    """Return where a file of an unpacked package is."""
    found = FOLDER / path.lstrip("/")
    if not found.exists():
        unavailable(f"{path} is not in {FOLDER}; run make pop3-servers")
    return found


def enter_private_mounts() -> None:
    """Begin this program again, with mounts that no other process sees; other users than root can, too."""
    if _INSIDE in os.environ:
        return
    options = ["--mount"] if os.geteuid() == 0 else ["--mount", "--user", "--map-root-user"]
    command = [program("unshare"), *options, sys.executable, *sys.orig_argv[1:]]
    os.execve(command[0], command, {**os.environ, _INSIDE: "1"})


def cover(folder: str) -> Path:
    """Lay an empty folder over one of the machine's, for this process and what it starts."""
    if _INSIDE not in os.environ:
        raise AssertionError("mounts would be seen by all")
    subprocess.run([program("mount"), "-t", "tmpfs", "tmpfs", folder], check=True)
    return Path(folder)


def cover_file(path: str, content: str, scratch: Path) -> None:
    """Lay a file over one of the machine's, for this process and what it starts."""
    if _INSIDE not in os.environ:
        raise AssertionError("mounts would be seen by all")
    made = scratch / path.strip("/").replace("/", "-")
    made.write_text(content)
    made.chmod(0o644)
    subprocess.run([program("mount"), "--bind", str(made), path], check=True)


def without_sleep(binary: Path, folder: Path) -> Path:
    """Copy a program that sleeps behind a failed login: the copy calls ``abs`` instead of ``sleep``."""
    copy = folder / binary.name
    copy.write_bytes(binary.read_bytes().replace(b"\0sleep\0", b"\0abs\0\0\0"))
    copy.chmod(0o755)
    return copy
