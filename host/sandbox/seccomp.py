"""System calls that a sandboxed process may not make, as a seccomp filter of the kernel.

A namespace hides what exists; this filter refuses what is left: new processes and programs,
sockets, signals to others, tracing, memory that no limit counts, and the parts of the kernel that
most faults were found in. A refused call fails with EPERM, so Python raises PermissionError.
"""

import ctypes
import errno
import platform
import struct
from dataclasses import dataclass

DENIED = {
    # New processes and programs. `clone` may start threads only.
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    # Sockets of every kind, also to servers that listen on a path.
    "socket": (41, 198),
    # Other processes: tracing, reading, signals and their descriptors.
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kill": (62, 129),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    # Memory that neither RLIMIT_AS nor the temporary folder bounds.
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    # Mounts and namespaces.
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "open_by_handle_at": (304, 265),
    # The keys of the user, and parts of the kernel that a model has no use for.
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "userfaultfd": (323, 282),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
}
"""System call -> its number on x86-64 and on arm64; None where there is no such call."""

_CLONE = (56, 220)
_CLONE_THREAD = 0x10000
_OWN_PROCESS_ONLY = {"tgkill": (234, 131), "prlimit64": (302, 261)}
"""Calls whose first argument names a process, which must be the caller; abort() uses tgkill."""
_CLONE3 = (435, 435)
"""Refused as unknown, because its flags lie in memory; the C library then calls `clone`."""

_X32_BIT = 0x40000000
"""Numbers of the x32 form of system calls on x86-64, which would pass by the list."""

# From linux/filter.h, linux/seccomp.h and linux/prctl.h.
_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_AT_LEAST, _JUMP_IF_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER_MODE = 38, 22, 2


@dataclass(frozen=True, slots=True)
class _Machine:
    """A processor architecture: its column in the tables above, and its AUDIT_ARCH number."""

    column: int
    audit: int


_MACHINES = {
    "x86_64": _Machine(0, 0xC000003E),
    "aarch64": _Machine(1, 0xC00000B7),
}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def forbid_system_calls(pid: int) -> None:
    """Forbid the calls above to this process, for ever; no thread may run yet.

    pid  this process as it sees itself.

    Raises OSError when the kernel or the architecture has no such filter.
    """
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        raise OSError(errno.ENOSYS, f"no list of system calls for {platform.machine()}")
    instructions = b"".join(_filter(machine, pid))
    program = _Program(len(instructions) // 8, instructions)
    libc = ctypes.CDLL(None, use_errno=True)
    # Without new privileges a program with the setuid bit runs as its caller.
    for arguments in (
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _FILTER_MODE, ctypes.byref(program), 0, 0),
    ):
        if libc.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), "the kernel takes no seccomp filter")


def _filter(machine: _Machine, pid: int) -> list[bytes]:
    """Return the instructions of the filter, 8 bytes each."""
    column = machine.column
    # A call of another architecture has other numbers, so it ends the process.
    program = [
        _instruction(_LOAD, _ARCHITECTURE_AT),
        _instruction(_JUMP_IF_EQUAL, machine.audit, if_true=1),
        _instruction(_RETURN, _KILL),
        _instruction(_LOAD, _NUMBER_AT),
        _instruction(_JUMP_IF_AT_LEAST, _X32_BIT, if_false=1),
        _instruction(_RETURN, _KILL),
    ]
    # Each rule is skipped unless the number is its own.
    for numbers in DENIED.values():
        number = numbers[column]
        if number is not None:
            program += _rule(number, [_instruction(_RETURN, _REFUSE | errno.EPERM)])
    program += _rule(_CLONE3[column], [_instruction(_RETURN, _REFUSE | errno.ENOSYS)])
    threads_only = _instruction(_JUMP_IF_SET, _CLONE_THREAD, if_false=1)
    program += _rule(_CLONE[column], _first_argument(threads_only))
    # prlimit64 names the caller by 0.
    for name, numbers in _OWN_PROCESS_ONLY.items():
        caller = pid if name == "tgkill" else 0
        is_caller = _instruction(_JUMP_IF_EQUAL, caller, if_false=1)
        program += _rule(numbers[column], _first_argument(is_caller))
    return [*program, _instruction(_RETURN, _ALLOW)]


def _rule(number: int, then: list[bytes]) -> list[bytes]:
    return [_instruction(_JUMP_IF_EQUAL, number, if_false=len(then)), *then]


def _first_argument(condition: bytes) -> list[bytes]:
    """Return what allows a call if *condition* is true of the low half of its first argument."""
    return [
        _instruction(_LOAD, _FIRST_ARGUMENT_AT),
        condition,
        _instruction(_RETURN, _ALLOW),
        _instruction(_RETURN, _REFUSE | errno.EPERM),
    ]


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
