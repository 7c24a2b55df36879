"""Memory that was freed goes back to the kernel. In a process of its own: the setting is for good."""

import platform
import subprocess
import sys

import pytest

# Twice as much as is freed between two that stay, and far less than what glibc would keep by itself.
_PROGRAM = """
from pathlib import Path
from provisioner.malloc import give_back_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

assert give_back_freed_memory()
bytearray(1 << 20)
before = resident()
kept = [(bytearray(256 << 10), bytearray(64 << 10)) for _ in range(200)]
kept = [small for _, small in kept]
print((resident() - before) >> 20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_large_blocks_are_given_back_whatever_stays_between_them() -> None:
    grown = subprocess.run([sys.executable, "-c", _PROGRAM], check=True, capture_output=True, text=True, timeout=60)
    # 200 x 64 KiB stay, 200 x 256 KiB do not.
    assert int(grown.stdout) < 30
