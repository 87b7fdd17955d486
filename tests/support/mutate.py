"""Mutations of data sets, deterministic for a seed, at the level where meaning stands.

Bytes are flipped, but also elements, items and fragments are cut, doubled, swapped and lied about,
since a parser's surprises are seldom in random noise.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path

from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless

from support import mr
from support.nested import ENCODINGS, LONG_VRS, UNDEFINED, Encoding

LIES = (
    0,
    1,
    2,
    3,
    7,
    8,
    0x7F,
    0xFF,
    0xFFFE,
    0xFFFF,
    0x10000,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFF0,
    0xFFFFFFFE,
    UNDEFINED,
)
"""Lengths and counts that something may choke on."""
NUMBERS = (
    "0",
    "-1",
    "65536",
    "2147483647",
    "4294967296",
    "9223372036854775808",
    "1e400",
    "NaN",
    "x",
    "1\\2",
    "",
)
SIZES = {
    0x00280008: "IS",
    0x00280010: "US",
    0x00280011: "US",
    0x00280002: "US",
    0x00280100: "US",
    0x00280101: "US",
}
_VRS = (
    *sorted(LONG_VRS),
    "AE",
    "AS",
    "CS",
    "DA",
    "DS",
    "IS",
    "LO",
    "PN",
    "SH",
    "UI",
    "US",
    "FD",
    "AT",
    "ZZ",
    "\0\0",
)

Rng = random.Random
Mutator = Callable[[Rng, bytes], bytes]


# ---- any bytes ----------------------------------------------------------------------------------


def flip(rng: Rng, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        if changed:
            changed[rng.randrange(len(changed))] = rng.choice((0, 0xFF, 0x7F, 0x80, rng.randrange(256)))
    return bytes(changed)


def truncate(rng: Rng, content: bytes) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def insert(rng: Rng, content: bytes) -> bytes:
    at = rng.randrange(len(content) + 1)
    return content[:at] + rng.randbytes(rng.randint(1, 40)) + content[at:]


def remove(rng: Rng, content: bytes) -> bytes:
    at = rng.randrange(len(content) + 1)
    return content[:at] + content[at + rng.randint(1, 40) :]


# ---- data sets ----------------------------------------------------------------------------------


def spans(content: bytes) -> list[tuple[int, int]]:
    """(begin, end) of the top level elements of an explicit VR little endian file, as far as they go."""
    found, at = [], 132 if content[128:132] == b"DICM" else 0
    while at + 8 <= len(content) and len(found) < 500:
        vr = content[at + 4 : at + 6].decode("latin-1")
        if vr in LONG_VRS:
            head, length = 12, int.from_bytes(content[at + 8 : at + 12], "little")
        else:
            head, length = 8, int.from_bytes(content[at + 6 : at + 8], "little")
        end = len(content) if length == UNDEFINED else min(at + head + length, len(content))
        found.append((at, end))
        at = end
    return found


def _element(rng: Rng, content: bytes) -> tuple[int, int]:
    return rng.choice(spans(content) or [(0, len(content))])


def lie_about_length(rng: Rng, content: bytes) -> bytes:
    begin, _ = _element(rng, content)
    lie = rng.choice(LIES)
    if content[begin + 4 : begin + 6].decode("latin-1") in LONG_VRS:
        return content[: begin + 8] + struct.pack("<L", lie) + content[begin + 12 :]
    return content[: begin + 6] + struct.pack("<H", lie & 0xFFFF) + content[begin + 8 :]


def change_vr(rng: Rng, content: bytes) -> bytes:
    begin, _ = _element(rng, content)
    return content[: begin + 4] + rng.choice(_VRS).encode() + content[begin + 6 :]


def delete_element(rng: Rng, content: bytes) -> bytes:
    begin, end = _element(rng, content)
    return content[:begin] + content[end:]


def double_element(rng: Rng, content: bytes) -> bytes:
    begin, end = _element(rng, content)
    at, _ = _element(rng, content)
    return content[:at] + content[begin:end] + content[at:]


def swap_elements(rng: Rng, content: bytes) -> bytes:
    (a, b), (c, d) = sorted((_element(rng, content), _element(rng, content)))
    return content if b > c else content[:a] + content[c:d] + content[b:c] + content[a:b] + content[d:]


def nest(rng: Rng, content: bytes) -> bytes:
    at, _ = _element(rng, content)
    tag, vr = rng.choice(((0x00081115, "SQ"), (0x00091010, "SQ"), (0x00091010, "UN"), (0x0040A730, "SQ")))
    depth = rng.choice((1, 5, 63, 64, 65, 200, 1000))
    tower = rng.choice(list(ENCODINGS.values())).tower(depth, tag, vr)
    return content[:at] + truncated_sometimes(rng, tower) + content[at:]


def truncated_sometimes(rng: Rng, content: bytes) -> bytes:
    return truncate(rng, content) if rng.random() < 0.2 else content


def lie_about_size(rng: Rng, content: bytes) -> bytes:
    """Rows, Columns, frames, samples, bits: absurd, and often in another VR."""
    tag, vr = rng.choice(list(SIZES.items()))
    for begin, end in spans(content):
        group, element = struct.unpack_from("<HH", content, begin)
        if group << 16 | element >= tag:
            after = end if group << 16 | element == tag else begin
            if vr == "US" and rng.random() < 0.7:
                value = struct.pack("<H", rng.choice((0, 1, 7, 255, 4096, 32768, 65535)))
            else:
                vr, text = "IS", rng.choice(NUMBERS).encode()
                value = text + b" " * (len(text) % 2)
            return content[:begin] + Encoding().head(tag, vr, len(value)) + value + content[after:]
    return content


def lie_about_fragments(rng: Rng, content: bytes) -> bytes:
    """Items of encapsulated pixel data (PS3.5 A.4): other lengths, offsets, contents, no end."""
    item, places, at = struct.pack("<HH", 0xFFFE, 0xE000), [], 0
    while (at := content.find(item, at)) >= 0 and len(places) < 50:
        places.append(at)
        at += 4
    if not places:
        return flip(rng, content)
    at = rng.choice(places)
    kind = rng.randrange(4)
    if kind == 0:
        return content[: at + 4] + struct.pack("<L", rng.choice(LIES)) + content[at + 8 :]
    if kind == 1:
        return content[: at + 8] + rng.randbytes(16) + content[at + 24 :]
    if kind == 2:
        return content[:at] + content[at + 8 :]
    return content[:-8]


def refold(rng: Rng, content: bytes) -> bytes:
    """A deflated file whose data set was mutated before it was folded; others are folded."""
    inner = delete_element(rng, lie_about_length(rng, content))
    stream = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    data_set = inner[144 + int.from_bytes(inner[140:144], "little") :]
    meta = Encoding().head(0x00020010, "UI", 22) + b"1.2.840.10008.1.2.1.99"
    return bytes(128) + b"DICM" + meta + truncated_sometimes(rng, stream.compress(data_set) + stream.flush())


DATA_SET_MUTATORS: tuple[Mutator, ...] = (
    flip, truncate, insert, remove, lie_about_length, change_vr, delete_element, double_element,
    swap_elements, nest, lie_about_size, lie_about_fragments, refold,
)  # fmt: skip


def mutated_data_set(rng: Rng, seeds: Sequence[bytes]) -> bytes:
    content = rng.choice(seeds)
    if rng.random() < 0.1:  # a chimera
        other = rng.choice(seeds)
        content = content[: rng.randrange(len(content) + 1)] + other[rng.randrange(len(other) + 1) :]
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        content = rng.choice(DATA_SET_MUTATORS)(rng, content)
    return content


@cache
def generated_seeds() -> tuple[bytes, ...]:
    """Files of every kind and encoding that this program meets, small."""
    classic, enhanced = mr.mr_instance(mr.DWI), mr.enhanced_mr(mr.DWI, 3, b_values=(0.0, 800.0))
    packed = mr.mr_instance()
    mr.file_bytes(packed)  # gives it file meta
    packed.compress(RLELossless, generate_instance_uid=False)
    plain = mr.mr_instance()
    del plain.PixelData
    return (
        mr.file_bytes(classic),
        mr.file_bytes(mr.mr_instance(), ImplicitVRLittleEndian),
        mr.file_bytes(plain, ExplicitVRBigEndian),
        mr.file_bytes(enhanced),
        mr.file_bytes(packed, RLELossless),
        mr.file_bytes(mr.report("Known leiomyoma")),
        refold(Rng(1), mr.file_bytes(mr.mr_instance())),
        Encoding().tower(30),
    )


def corpus(folders: Iterable[Path], longest: int = 200_000) -> tuple[bytes, ...]:
    """The small files of some folders, for seeds."""
    paths = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
    return tuple(path.read_bytes() for path in paths if 0 < path.stat().st_size <= longest)
