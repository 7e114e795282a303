"""A .cu file as text: its includes put in their places, and what its kernels take.

CuPy's compile cache does not look into included files, and the emulator needs the parameters, so both are given this.
"""

import re
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
SCALARS = {"int": "i4", "unsigned": "u4", "unsigned int": "u4", "long long": "i8", "unsigned long long": "u8", "bool": "?",
           "unsigned char": "u1", "float": "f4", "double": "f8"}
_INCLUDE = re.compile(r'^#include "([\w.]+)"[^\n]*$', re.MULTILINE)
_KERNEL = re.compile(r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(([^)]*)\)\s*\{')


@dataclass(frozen=True)
class Parameter:
    name: str
    type: str           # a NumPy type code; "real" is the type that the file is compiled for
    pointer: bool
    constant: bool      # is not written through


def spliced(path, seen=None):
    """The text of a .cu file, with each #include "..." replaced by that file, once; #line says where a line was."""
    seen = set() if seen is None else seen
    text = path.read_text()

    def include(match):
        inner = path.parent / match[1]
        if inner in seen:
            return ""
        seen.add(inner)
        line = text.count("\n", 0, match.start()) + 1
        return f'{spliced(inner, seen)}\n#line {line + 1} "{path.name}"'

    return f'#line 1 "{path.name}"\n' + _INCLUDE.sub(include, text)


def kernels(text):
    """{name: [Parameter, ...]} of every kernel in a text. ValueError for a type that kernels here do not use."""
    plain = re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL)
    return {name: [_parameter(name, p) for p in parameters.split(",") if p.strip()]
            for name, parameters in _KERNEL.findall(plain)}


def _parameter(kernel, text):
    words = text.replace("__restrict__", " ").replace("*", " * ").split()
    pointer, constant, name = "*" in words, "const" in words, words[-1]
    base = " ".join(w for w in words[:-1] if w not in ("*", "const"))
    if base != "real" and base not in SCALARS:
        raise ValueError(f"kernel {kernel}: parameter {text.strip()!r} is of a type that launches do not know")
    return Parameter(name, "real" if base == "real" else SCALARS[base], pointer, constant)
