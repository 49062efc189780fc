"""A system-call filter for bubblewrap: calls that tests never need and kernel exploits love.

Docker brings a filter of its own. The filter denies (EPERM, or ENOSYS where programs fall back on
an older call) and otherwise allows; calls of another architecture are denied altogether. Sockets
are allowed in the families that a network namespace confines; a virtual machine's AF_VSOCK, say,
leads past it to the hypervisor.
"""

from __future__ import annotations

import errno
import platform
import struct

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
X32_BIT = 0x40000000
DENIED = {
    # name: (x86_64, aarch64)
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "kexec_load": (246, 104),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "open_by_handle_at": (304, 265),
}
MISSING = {
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
}

SOCKET = (41, 198)
FAMILIES = (1, 2, 10, 16)
"""AF_UNIX, AF_INET, AF_INET6, AF_NETLINK."""

LOAD, JUMP_EQUAL, JUMP_GREATER_EQUAL, RETURN = 0x20, 0x15, 0x35, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000


def filter_program(machine: str | None = None) -> bytes | None:
    """The filter as an array of `struct sock_filter` (8 bytes each), None for other machines."""
    machine = machine or platform.machine()
    if machine not in ARCHITECTURES:
        return None
    column = list(ARCHITECTURES).index(machine)
    code = [
        (LOAD, 0, 0, 4),  # seccomp_data.arch
        (JUMP_EQUAL, 1, 0, ARCHITECTURES[machine]),
        (RETURN, 0, 0, ERRNO | errno.EPERM),
        (LOAD, 0, 0, 0),  # seccomp_data.nr
    ]
    if machine == "x86_64":
        code += [(JUMP_GREATER_EQUAL, 0, 1, X32_BIT), (RETURN, 0, 0, ERRNO | errno.ENOSYS)]
    for calls, number in ((DENIED, errno.EPERM), (MISSING, errno.ENOSYS)):
        for numbers in calls.values():
            code += [(JUMP_EQUAL, 0, 1, numbers[column]), (RETURN, 0, 0, ERRNO | number)]
    code.append((JUMP_EQUAL, 0, 2 + len(FAMILIES), SOCKET[column]))
    code.append((LOAD, 0, 0, 16))  # low half of the first argument
    for left, family in zip(range(len(FAMILIES), 0, -1), FAMILIES, strict=True):
        code.append((JUMP_EQUAL, left, 0, family))
    code.append((RETURN, 0, 0, ERRNO | errno.EAFNOSUPPORT))
    code.append((RETURN, 0, 0, ALLOW))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)
