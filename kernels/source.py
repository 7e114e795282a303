"""A .cu file as text: its includes put in their places, and what its kernels take.

CuPy's compile cache does not look into included files, and the emulator needs the parameters, so both are given this.
"""

import re
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
SCALARS = {"int": "i4", "unsigned": "u4", "unsigned int": "u4", "long long": "i8", "unsigned long long": "u8", "bool": "?",
           "unsigned char": "u1", "float": "f4", "double": "f8"}
C_NAMES = {code: name for name, code in SCALARS.items()} | {"b1": "unsigned char"}      # what `real` may be
_INCLUDE = re.compile(r'^#include "([\w.]+)"[^\n]*$', re.MULTILINE)
_STRUCT = re.compile(r"struct (\w+) \{\s*(int|real\*) ([^;]*);\s*\};")
_KERNEL = re.compile(r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(([^)]*)\)\s*\{')


@dataclass(frozen=True)
class Parameter:
    name: str
    type: str           # a NumPy type code; "real": what the file is compiled for; "V40": a struct of ten ints or five pointers
    of: str             # what the file calls that
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


def for_real(text, real):
    """What NVRTC is given: the text for one type of `real`, named as C does."""
    return f"#define real {real}\n{text}"


def kernels(text):
    """{name: [Parameter, ...]} of every kernel in a text. ValueError for a type that kernels here do not use."""
    plain = _expanded(re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL))
    sizes = dict(re.findall(r"^#define (\w+) (\d+)\s*$", plain, re.MULTILINE))
    structs = {name: f"V{(4 if of == 'int' else 8) * sum(_length(m, sizes) for m in members.split(','))}"
               for name, of, members in _STRUCT.findall(plain)}
    known = SCALARS | {"real": "real"} | structs
    known |= {name: known[of] for of, name in re.findall(r"typedef ([\w ]+) (\w+);", plain)}
    return {name: [_parameter(name, p, known) for p in parameters.split(",") if p.strip()]
            for name, parameters in _KERNEL.findall(plain)}


def _expanded(text):
    """The text with the macros called that define a kernel."""
    text = text.replace("\\\n", " ")
    for name, given, body in re.findall(r"^#define (\w+)\(([^)]*)\)(.*__global__.*)$", text, re.MULTILINE):
        names = [g.strip() for g in given.split(",")]
        for call in re.findall(rf"^{name}\((.*)\)", text, re.MULTILINE):
            values = dict(zip(names, [v.strip() for v in call.split(",", len(names) - 1)], strict=True))
            text += "\n" + re.sub(r"\w+", lambda word, values=values: values.get(word[0], word[0]), body)
        text = text.replace(body, "", 1)
    return text


def _length(member, sizes):
    """Of `size[6]`: 6, and of `size[MANY]` what MANY is; of `n`: 1."""
    inner = member.partition("[")[2].strip(" ]") or "1"
    return int(sizes.get(inner, inner))


def _parameter(kernel, text, known):
    words = text.replace("__restrict__", " ").replace("*", " * ").split()
    pointer, constant, name = "*" in words, "const" in words, words[-1]
    base = " ".join(w for w in words[:-1] if w not in ("*", "const"))
    if base not in known:
        raise ValueError(f"kernel {kernel}: parameter {text.strip()!r} is of a type that launches do not know")
    return Parameter(name, known[base], base, pointer, constant)
