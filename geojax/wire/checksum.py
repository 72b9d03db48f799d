"""CRC-32 of frames (ISO 3309, as in zlib), by the fastest way that is installed.

ISA-L's (package isal, of the extra ``fast``) uses the processor's carry-less multiplication; it is
the same number as zlib's, so nodes with and without it understand each other.
"""

from __future__ import annotations

try:
    from isal.isal_zlib import crc32
except ImportError:
    from zlib import crc32

__all__ = ["crc32"]
