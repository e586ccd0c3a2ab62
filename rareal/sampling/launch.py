"""Start a program that dies with the one that started it: ``python -m rareal.sampling.launch PARENT COMMAND...``.

Without this, killing rareal would leave LAMMPS writing into a folder in which a resumed run already starts again.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    """Become ``command``; Linux only, elsewhere it is just started."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            # the parent died before the kernel was told to watch it
            raise SystemExit(1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
