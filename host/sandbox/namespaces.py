"""Runs a command in namespaces of its own, where bubblewrap is not installed.

It is a program: `python -I -S namespaces.py SETTINGS`, with SETTINGS as JSON: `binds` (path on the
host, path inside), `links` (target, path inside), `devices`, `temp_mb`, `environment` and
`command`. It needs Linux 5.12 and a kernel that lets its user make user namespaces.

    this process         new user, mount, network, IPC, UTS and process namespaces
      process 1 inside   makes the root, waits
        the command      no capability, no way back to one

It ends as the command does: its exit code, or 128 and the number of its signal.
"""

import ctypes
import json
import os
import platform
import signal
import sys
from pathlib import Path
from typing import Any

# From linux/sched.h: mounts, names, IPC, user, processes, network.
_NEW_NAMESPACES = 0x00020000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
_NOBODY = 65534

# System calls without a function in the C library. Newer ones have one number everywhere.
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442

# From linux/mount.h, linux/fcntl.h and linux/prctl.h.
_OPEN_TREE_CLONE, _AT_RECURSIVE, _AT_EMPTY_PATH, _AT_FDCWD = 1, 0x8000, 0x1000, -100
_MOVE_MOUNT_F_EMPTY_PATH = 4
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4
_MS_NOSUID, _MS_NODEV, _MS_REC_PRIVATE = 2, 4, 0x4000 | 0x40000
_MNT_DETACH = 2
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38

_MOUNT_POINT = "/tmp"  # noqa: S108  any folder will do: only this process sees what is mounted
_INODES_MAX = 10_000

_libc = ctypes.CDLL(None, use_errno=True)


def _call(doing: str, result: int) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{doing}: {os.strerror(error)}")
    return result


def _end_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def enter_namespaces() -> None:
    """Make the namespaces; the caller's user is nobody there, with every capability."""
    user, group = os.geteuid(), os.getegid()
    _call("namespaces", _libc.unshare(_NEW_NAMESPACES))
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"{_NOBODY} {user} 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"{_NOBODY} {group} 1", encoding="ascii")


def make_root(settings: dict[str, Any]) -> None:
    """Make `/` a small tmpfs with the given folders in it, which all but /tmp only reads."""
    _call("mounts", _libc.mount(None, b"/", None, _MS_REC_PRIVATE, None))
    # The folders are taken before anything is mounted above them.
    read_only = _ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV
    mounts = [
        (_clone_mount(path, read_only), Path(path).is_dir(), to) for path, to in settings["binds"]
    ]
    mounts += [(_clone_mount(path, _ATTR_NOSUID), False, path) for path in settings["devices"]]
    _mount_tmpfs(_MOUNT_POINT, "size=1m,nr_inodes=10000,mode=755")
    # A folder of the host that lies below /tmp is attached inside of the new /tmp.
    temp = Path(_MOUNT_POINT) / "tmp"
    temp.mkdir()
    _mount_tmpfs(str(temp), f"size={settings['temp_mb']}m,nr_inodes={_INODES_MAX},mode=700")
    for mount, is_folder, to in mounts:
        _attach(mount, Path(_MOUNT_POINT + to), is_folder=is_folder)
    for target, to in settings["links"]:
        Path(_MOUNT_POINT + to).symlink_to(target)
    # The old root stays only below the new, and is taken off from there.
    _set_attributes(_AT_FDCWD, _MOUNT_POINT, 0, _ATTR_RDONLY)
    os.chdir(_MOUNT_POINT)
    pivot = _PIVOT_ROOT[platform.machine()]
    _call("pivot_root", _libc.syscall(pivot, b".", b"."))
    _call("umount2", _libc.umount2(b".", _MNT_DETACH))
    os.chdir("/tmp")  # noqa: S108  the tmpfs that was made above


def _clone_mount(path: str, attributes: int) -> int:
    """Return a descriptor of a mount of *path* that is nowhere yet."""
    flags = _OPEN_TREE_CLONE | _AT_RECURSIVE | os.O_CLOEXEC
    mount = _call(path, _libc.syscall(_OPEN_TREE, _AT_FDCWD, os.fsencode(path), flags))
    _set_attributes(mount, "", _AT_EMPTY_PATH | _AT_RECURSIVE, attributes)
    return mount


def _set_attributes(folder: int, path: str, flags: int, attributes: int) -> None:
    structure = (ctypes.c_uint64 * 4)(attributes, 0, 0, 0)
    arguments = (folder, os.fsencode(path), flags, structure, ctypes.sizeof(structure))
    _call(f"read-only {path}", _libc.syscall(_MOUNT_SETATTR, *arguments))


def _attach(mount: int, target: Path, *, is_folder: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if is_folder:
        target.mkdir(exist_ok=True)
    else:
        target.touch()
    flags = _MOVE_MOUNT_F_EMPTY_PATH
    arguments = (mount, b"", _AT_FDCWD, os.fsencode(target), flags)
    _call(str(target), _libc.syscall(_MOVE_MOUNT, *arguments))


def _mount_tmpfs(path: str, options: str) -> None:
    flags = _MS_NOSUID | _MS_NODEV
    _call(path, _libc.mount(b"tmpfs", path.encode(), b"tmpfs", flags, options.encode()))


def _wait(child: int) -> int:
    """Wait for *child*, and for every other child before it; return its exit code."""
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def main() -> None:
    """Run the command of the settings, and end as it does."""
    settings = json.loads(sys.argv[1])
    _end_with_parent()
    enter_namespaces()
    _end_with_parent()  # the kernel forgets it when rights change
    # The first process after this is number 1 of the new namespace.
    first = os.fork()
    if first:
        os._exit(_wait(first))
    _end_with_parent()
    make_root(settings)
    child = os.fork()
    if child:
        os._exit(_wait(child))
    # Nobody is not root, so exec drops every capability, and without new privileges none returns.
    _call("no_new_privs", _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    os.setsid()
    _end_with_parent()
    command = settings["command"]
    os.execve(command[0], command, settings["environment"])  # noqa: S606  no shell is wanted


if __name__ == "__main__":
    main()
