"""Restrictions on a process that scores untrusted text, by the kernel and the interpreter.

`worker.py` imports this file by its path, so it imports nothing of the package. Each function
returns the names of the restrictions in force, since a kernel may not grant them.
"""

import contextlib
import ctypes
import errno
import os
import platform
import resource
import struct
import sys

_NEW_USER, _NEW_NET = 0x10000000, 0x40000000  # unshare(2)
_NO_NEW_PRIVS, _SET_SECCOMP = 38, 22  # prctl(2)
_CREATE_RULESET, _RESTRICT_SELF = 444, 446  # landlock(7): the same numbers on every architecture
_CLONE_THREAD = 0x10000  # clone(2)
_REFUSED = {
  *("os.exec", "os.fork", "os.forkpty", "os.kill", "os.killpg", "os.posix_spawn", "os.spawn"),
  *("os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir"),
  *("os.symlink", "os.system", "os.truncate", "os.utime", "pty.spawn", "subprocess.Popen"),
}
# Processes, sessions and namespaces; other processes' memory, descriptors, signals and priority;
# io_uring, whose system calls no filter sees; modes, owners, times and attributes of files, and
# local sockets, which Landlock does not handle; keys, and memory, queues and
# semaphores that outlive a process. By machine: (audit number of the architecture, clone, tgkill,
# prlimit64, refused calls). clone3 is 435 on all.
_ATTRIBUTES = (452, 463, 466)
_CALLS = {
  "x86_64": (
    *(0xC000003E, 56, 234, 302),
    (
      *(57, 58, 59, 322, 109, 112, 272, 308, 101, 310, 311, 438, 62, 129, 200, 297, 424, 425),
      *(90, 91, 268, 92, 93, 94, 260, 132, 235, 261, 280, 188, 189, 190, 197, 198, 199),
      *(141, 251, 142, 144, 203, 314, 248, 249, 250, 29, 64, 68, 240, 41, *_ATTRIBUTES),
    ),
  ),
  "aarch64": (
    *(0xC00000B7, 220, 131, 261),
    (
      *(221, 281, 154, 157, 97, 268, 117, 270, 271, 438, 129, 138, 130, 240, 424, 425),
      *(52, 53, 54, 55, 88, 5, 6, 7, 14, 15, 16),
      *(140, 30, 118, 119, 122, 274, 217, 218, 219, 194, 190, 186, 180, 198, *_ATTRIBUTES),
    ),
  ),
}


def limit(**limits: int) -> list[str]:
  """Sets the limits that this system supports."""
  in_force = []
  for name, value in limits.items():
    with contextlib.suppress(ValueError, OSError):
      resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
      in_force.append(f"RLIMIT_{name}")
  return in_force


def unshare(libc: ctypes.CDLL) -> list[str]:
  """Enters a network without interfaces, within a user namespace if that is permitted."""
  call = getattr(libc, "unshare", lambda flags: -1)
  granted = call(_NEW_USER | _NEW_NET) == 0 or call(_NEW_NET) == 0
  return ["network namespace"] if granted else []


def landlock(libc: ctypes.CDLL) -> list[str]:
  """Denies every access but reading, as far as this kernel can."""
  if sys.platform != "linux":
    return []
  version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
  files = 0x1FF3 | (0x4000 if version >= 3 else 0)  # from version 3 on, truncation
  fields = [files] + ([3] if version >= 4 else []) + ([3] if version >= 6 else [])  # TCP; signals
  rules = struct.pack(f"{len(fields)}Q", *fields)
  ruleset = libc.syscall(_CREATE_RULESET, rules, ctypes.c_size_t(len(rules)), 0)
  if ruleset < 0 or libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0):
    return []
  granted = libc.syscall(_RESTRICT_SELF, ruleset, 0) == 0
  os.close(ruleset)
  return [f"landlock {version}"] if granted else []


def seccomp(libc: ctypes.CDLL) -> list[str]:
  """Denies new processes, but not threads, and signals to, access to and limits of other
  processes; changes of files' modes, owners, times and attributes; and kernel objects that outlive
  the process."""
  if sys.platform != "linux" or platform.machine() not in _CALLS:
    return []
  code = _program(*_CALLS[platform.machine()])
  program = ctypes.create_string_buffer(code)
  header = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(program))
  if libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(_SET_SECCOMP, 2, header, 0, 0):
    return []
  return ["seccomp"]


def _program(
  architecture: int, clone: int, tgkill: int, prlimit: int, refused: tuple[int, ...]
) -> bytes:
  """For the kernel's packet filter: instructions (code, steps if true, steps if false, operand)."""
  load, equal, at_least, any_bit, answer = 0x20, 0x15, 0x35, 0x45, 0x06
  allow, refuse = 0x7FFF0000, 0x00050000 | errno.EPERM
  steps = [
    (load, 0, 0, 4),  # the architecture: calls of another have other numbers
    *((equal, 1, 0, architecture), (answer, 0, 0, refuse)),
    (load, 0, 0, 0),  # the call
    *((at_least, 0, 1, 1 << 30), (answer, 0, 0, refuse)),  # x32's
  ]
  for call in refused:
    steps += [(equal, 0, 1, call), (answer, 0, 0, refuse)]
  steps += [(equal, 0, 1, 435), (answer, 0, 0, 0x00050000 | errno.ENOSYS)]  # threads fall back
  # Threads only; and itself only, which is 0 for prlimit64, as setrlimit calls it.
  allowed = (clone, any_bit, _CLONE_THREAD), (tgkill, equal, os.getpid()), (prlimit, equal, 0)
  for call, test, operand in allowed:
    steps += [(equal, 0, 4, call), (load, 0, 0, 16), (test, 0, 1, operand)]
    steps += [(answer, 0, 0, allow), (answer, 0, 0, refuse)]
  steps += [(answer, 0, 0, allow)]
  return b"".join(struct.pack("HBBI", *step) for step in steps)


def refuse(event: str, args: tuple) -> None:
  """An audit hook that allows reading and computing only."""
  if event == "open":
    flags = args[2] or 0
    refused = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))
  else:
    refused = event in _REFUSED or event.startswith(("socket.", "shutil."))
  if refused:
    raise PermissionError(f"A scorer may not do this: {event} {args!r:.100}.")
