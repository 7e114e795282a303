"""python -m minigen.kernels.emulator: the planted mistakes, and what is said of each."""

import sys

from . import missing, planted

if __name__ == "__main__":
    if reason := missing():
        sys.exit(f"the emulator cannot run: {reason}")
    lines, fine = planted.table()
    print("\n".join(lines))
    print(f"\n{len(planted.BUGS)} mistakes, {len(planted.GOOD)} kernels without one, three orders of threads each")
    sys.exit(0 if fine else 1)
