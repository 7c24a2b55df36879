"""How the C library's allocator treats what Python frees: given back at once, or kept for the next time."""

import ctypes
from typing import Final

# malloc.h of glibc: https://man7.org/linux/man-pages/man3/mallopt.3.html
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
# Bytes: glibc's own first value of both. Left alone it raises them to 32 MiB as soon as something large is freed, and
# then keeps the buffers of closed TLS connections, of 256 KiB each, and the bodies of long lists for good.
_THRESHOLD: Final = 128 << 10


def give_back_freed_memory() -> bool:
    """Have large blocks go back to the kernel when they are freed. False where the C library is no glibc."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    # 1 is success; not an errno.
    return all(mallopt(option, _THRESHOLD) == 1 for option in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD))
