"""Checksums of files that PyTorch wrote, which PyTorch itself never looks at."""

from __future__ import annotations

import os
import zipfile
from typing import IO


def is_spoilt(file: IO[bytes]) -> bool:
    """Whether a file is not as ``torch.save`` wrote it, as far as its checksums tell.

    Files of before 2020 are no zip files and have none. The file is left at its beginning.

    Raises:
        zipfile.BadZipFile: its directory is damaged.
    """
    if not zipfile.is_zipfile(file):
        file.seek(0)
        return False
    size = file.seek(0, os.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        # PyTorch compresses nothing. A crafted file that claims to hold more than it has would keep us reading.
        claimed = sum(member.file_size for member in archive.infolist())
        spoilt = claimed > size or archive.testzip() is not None
    file.seek(0)
    return spoilt
