"""Where compiled kernels are kept: Numba's beside the source, as it does by itself, or in the user's cache folder where the
source is read-only; the emulator's in the user's cache folder. Where neither can be written, in a folder for temporary files.
"""

import contextlib
import os
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent


def user_folder(name):
    """A folder of that name in the user's cache folder, which XDG_CACHE_HOME moves; None if it cannot be written."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / name
    return folder if _writable(folder) else None


def temporary_folder(name):
    """One among the temporary files, the user's own. ValueError if somebody else has made it: what lies there is run."""
    folder = Path(tempfile.gettempdir()) / f"{name}-{os.getuid() if hasattr(os, 'getuid') else os.getlogin()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():
        raise ValueError(f"{folder} belongs to somebody else; XDG_CACHE_HOME chooses another folder for compiled kernels")
    return folder


def _writable(folder):
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    return False


def let_numba_keep_kernels():
    """Before Numba is loaded: if it has no place for its cache, which it takes for an error, give it one."""
    if "NUMBA_CACHE_DIR" not in os.environ and not _writable(HERE / "__pycache__") and user_folder("numba") is None:
        os.environ["NUMBA_CACHE_DIR"] = str(temporary_folder("minigen-numba"))
