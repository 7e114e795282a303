"""The heap keeps its pages: an array that is freed gives its memory to the next one, not back to the system.

glibc returns large blocks to the kernel as soon as they are free, and asks for them again a moment later. Every page must then
be cleared and mapped anew when it is first touched. A training step frees and allocates the same sizes over and over; measured
with an MLP GAN, a quarter of its time (1,000 page faults a step) went into that; WGAN-GP on 32x32 images gained 10 %.

The price: the process keeps as much memory as it once needed. If a MALLOC_ variable or GLIBC_TUNABLES is set, nothing is
changed; nor on systems without glibc.
"""

import ctypes
import os
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # malloc.h

KEPT = 2**31 - 1        # bytes at the end of the heap that may be free before any are returned: as many as an int can say
GROWTH = 16 << 20       # bytes that the heap grows by at least
MAPPED = 0              # blocks that may lie outside the heap, where they would be returned as soon as they are free


def keep_pages() -> bool:
    """Tell glibc to keep what is freed. Returns whether it was told, and understood."""
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ) or not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all([mallopt(_MMAP_MAX, MAPPED), mallopt(_TRIM_THRESHOLD, KEPT), mallopt(_TOP_PAD, GROWTH)])


kept = keep_pages()
