"""Gives up every right but to compute, in the process that calls it; there is no way back.

Limits of the operating system (memory, time, files) work everywhere. On Linux a filter refuses system calls that start
processes, open sockets, signal others, change files or limits, and Landlock leaves the standard library readable and
nothing else. Each of the two that a machine lacks is told, so that results can say how far a program was confined.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import signal
import struct
import sys
import sysconfig

# Numbers of the system calls refused, on x86-64 and on ARM (asm-generic). By name for whoever checks them.
_X86 = {
    "socket": 41, "connect": 42, "accept": 43, "sendto": 44, "sendmsg": 46, "bind": 49, "listen": 50,
    "socketpair": 53, "accept4": 288, "clone": 56, "fork": 57, "vfork": 58, "execve": 59, "execveat": 322,
    "kill": 62, "tkill": 200, "tgkill": 234, "rt_sigqueueinfo": 129, "rt_tgsigqueueinfo": 297, "ptrace": 101,
    "process_vm_readv": 310, "process_vm_writev": 311, "setpgid": 109, "setsid": 112, "setrlimit": 160,
    "prlimit64": 302, "chroot": 161, "mount": 165, "umount2": 166, "pivot_root": 155, "unshare": 272, "setns": 308,
    "bpf": 321, "perf_event_open": 298, "userfaultfd": 323, "add_key": 248, "request_key": 249, "keyctl": 250,
    "init_module": 175, "finit_module": 313, "kexec_load": 246, "reboot": 169, "memfd_create": 319, "shmget": 29,
    "semget": 64, "msgget": 68, "mq_open": 240, "rename": 82, "mkdir": 83, "rmdir": 84, "creat": 85, "link": 86,
    "unlink": 87, "symlink": 88, "chmod": 90, "fchmod": 91, "chown": 92, "fchown": 93, "lchown": 94, "truncate": 76,
    "ftruncate": 77, "mknod": 133, "utime": 132, "utimes": 235, "setxattr": 188, "lsetxattr": 189, "fsetxattr": 190,
    "mkdirat": 258, "mknodat": 259, "fchownat": 260, "futimesat": 261, "unlinkat": 263, "renameat": 264,
    "linkat": 265, "symlinkat": 266, "fchmodat": 268, "utimensat": 280, "renameat2": 316,
}  # fmt: skip
_ARM = {
    "socket": 198, "socketpair": 199, "bind": 200, "listen": 201, "accept": 202, "connect": 203, "sendto": 206,
    "sendmsg": 211, "accept4": 242, "clone": 220, "execve": 221, "execveat": 281, "kill": 129, "tkill": 130,
    "tgkill": 131, "rt_sigqueueinfo": 138, "rt_tgsigqueueinfo": 240, "ptrace": 117, "process_vm_readv": 270,
    "process_vm_writev": 271, "setpgid": 154, "setsid": 157, "setrlimit": 164, "prlimit64": 261, "chroot": 51,
    "mount": 40, "umount2": 39, "pivot_root": 41, "unshare": 97, "setns": 268, "bpf": 280, "perf_event_open": 241,
    "userfaultfd": 282, "add_key": 217, "request_key": 218, "keyctl": 219, "init_module": 105, "finit_module": 273,
    "kexec_load": 104, "reboot": 142, "memfd_create": 279, "shmget": 194, "semget": 190, "msgget": 186,
    "mq_open": 180, "mknodat": 33, "mkdirat": 34, "unlinkat": 35, "symlinkat": 36, "linkat": 37, "renameat": 38,
    "truncate": 45, "ftruncate": 46, "fchmod": 52, "fchmodat": 53, "fchownat": 54, "fchown": 55, "utimensat": 88,
    "setxattr": 5, "lsetxattr": 6, "fsetxattr": 7, "renameat2": 276,
}  # fmt: skip
_EVERYWHERE = {
    "pidfd_send_signal": 424, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
    "pidfd_open": 434, "pidfd_getfd": 438, "fchmodat2": 452,
}  # fmt: skip
_CLONE3, _OPENAT2 = 435, 437  # refused as unknown, so that the C library falls back on the older calls
# Calls that open a file, with the place of their flags among the arguments: only reading is allowed.
_OPENING_X86, _OPENING_ARM = {2: 1, 257: 2}, {56: 2}
_CHANGING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_ARCHITECTURES = {"x86_64": (0xC000003E, _X86, _OPENING_X86), "aarch64": (0xC00000B7, _ARM, _OPENING_ARM)}
_X32 = 0x40000000  # system calls of x86-64's other interface

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_FILTER = 2
_LOAD, _JUMP_EQUAL, _JUMP_GREATER, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_FIRST_ARGUMENT = 16  # bytes before it in what the filter looks at; each has eight, the low half first
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_EPERM, _ENOSYS = 1, 38

_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_READ_FILE, _READ_DIRECTORY = 1 << 2, 1 << 3
_FS_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}  # by version of Landlock; later ones: 16
_READABLE = ("/usr/lib", "/lib", "/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache", "/dev/urandom", "/dev/null")


def confine(memory: int, cpu_seconds: int, *, parent: int) -> list[str]:
    """Confine this process; returns what could not be done. ``parent`` is whoever started it: it dies with that."""
    missing = [] if _limit(memory, cpu_seconds) else ["memory limit"]
    if not sys.platform.startswith("linux"):
        return [*missing, "system calls", "files"]
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    if os.getppid() != parent:  # it died before we asked to be told
        os._exit(1)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return [*missing, "system calls", "files"]
    if not _restrict_files(libc):
        missing.append("files")
    if not _filter_calls(libc):
        missing.append("system calls")
    return missing


def _limit(memory: int, cpu_seconds: int) -> bool:
    is_limited = True
    for name, soft, hard in (
        ("RLIMIT_CORE", 0, 0),
        ("RLIMIT_FSIZE", 0, 0),  # no byte into any file; pipes are none
        ("RLIMIT_NOFILE", 32, 32),
        ("RLIMIT_CPU", cpu_seconds, cpu_seconds + 1),
        ("RLIMIT_NPROC", 0, 0),
        ("RLIMIT_AS", memory, memory),
    ):
        try:
            resource.setrlimit(getattr(resource, name), (soft, hard))
        except (AttributeError, OSError, ValueError):
            is_limited = is_limited and name != "RLIMIT_AS"
    return is_limited


def _restrict_files(libc: ctypes.CDLL) -> bool:
    """Landlock: the standard library may be read, nothing else may be opened."""
    version = libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    if version < 1:
        return False
    rights = (1 << _FS_RIGHTS.get(version, 16)) - 1
    attributes = struct.pack("QQQ", rights, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = libc.syscall(_LANDLOCK_CREATE, attributes, ctypes.c_size_t(size), ctypes.c_uint32(0))
    if ruleset < 0:
        return False
    try:
        library = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), os.path.dirname(os.__file__)}
        for path in sorted({*_READABLE, *(folder for folder in library if folder)}):
            _allow_reading(libc, ruleset, path)
        return int(libc.syscall(_LANDLOCK_RESTRICT, ruleset, ctypes.c_uint32(0))) == 0
    finally:
        os.close(ruleset)


def _allow_reading(libc: ctypes.CDLL, ruleset: int, path: str) -> None:
    with contextlib.suppress(OSError):
        file = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            rights = _READ_FILE | _READ_DIRECTORY if os.path.isdir(path) else _READ_FILE
            rule = struct.pack("=Qi", rights, file)
            libc.syscall(_LANDLOCK_ADD, ruleset, ctypes.c_int(1), rule, ctypes.c_uint32(0))
        finally:
            os.close(file)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def _filter_calls(libc: ctypes.CDLL) -> bool:
    """A seccomp filter that refuses what a program that only computes never needs."""
    known = _ARCHITECTURES.get(platform.machine())
    if known is None or struct.calcsize("P") != 8:
        return False
    architecture, calls, opening = known
    steps = [(_LOAD, 0, 0, 4), (_JUMP_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    steps += [(_JUMP_GREATER, 0, 1, _X32), (_RETURN, 0, 0, _KILL)]
    for number in (_CLONE3, _OPENAT2):
        steps += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | _ENOSYS)]
    for number in sorted({*calls.values(), *_EVERYWHERE.values()}):
        steps += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | _EPERM)]
    for number, place in opening.items():
        steps += [(_JUMP_EQUAL, 0, 4, number), (_LOAD, 0, 0, _FIRST_ARGUMENT + 8 * place)]
        steps += [(_JUMP_ANY_BIT, 0, 1, _CHANGING), (_RETURN, 0, 0, _ERRNO | _EPERM), (_RETURN, 0, 0, _ALLOW)]
    steps.append((_RETURN, 0, 0, _ALLOW))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = _Program(len(steps), ctypes.cast(code, ctypes.c_void_p))
    return int(libc.prctl(_PR_SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0)) == 0
