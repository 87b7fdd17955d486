"""What is sent: small MR images of one study, a repeat, and other bytes under a known UID."""

from __future__ import annotations

import random
from dataclasses import dataclass

from support import mr

MR_IMAGE = mr.MR_IMAGE
STORED, CONFLICTS = 0x0000, 0x0111


@dataclass(frozen=True)
class Item:
    """One C-STORE and the answer that a healthy node gives to it."""

    uid: str
    data_set: bytes
    status: int = STORED


@dataclass(frozen=True)
class Sending:
    """What is sent on each association; the n-th of each leave at the same time."""

    associations: tuple[tuple[Item, ...], ...]

    @property
    def items(self) -> list[Item]:
        return [item for association in self.associations for item in association]

    @property
    def steps(self) -> list[list[Item]]:
        longest = max(map(len, self.associations))
        return [[a[n] for a in self.associations if n < len(a)] for n in range(longest)]


def sending(seed: int, *, associations: int = 1, images: int = 3) -> Sending:
    """By `seed`: sizes, and where the repeat and the conflicting instance stand."""
    dice = random.Random(seed)
    made = []
    for number in range(associations):
        items = [image(f"{seed} {number}", k, dice.choice((8, 24, 96, 160))) for k in range(images)]
        if number == 0:
            items.insert(dice.randint(1, len(items)), items[0])
            items.insert(dice.randint(1, len(items)), other_bytes(items[0]))
        made.append(tuple(items))
    return Sending(tuple(sorted(made, key=len, reverse=True)))


def image(series: str, slice_: int, side: int = 24) -> Item:
    """side x side pixels of two bytes."""
    ds = mr.mr_series(slices=1, first=slice_, series=series, rows=side, columns=side)[0]
    return Item(str(ds.SOPInstanceUID), after_file_meta(mr.file_bytes(ds)))


def other_bytes(item: Item) -> Item:
    return Item(item.uid, item.data_set[:-2] + bytes(b ^ 1 for b in item.data_set[-2:]), CONFLICTS)


def after_file_meta(file: bytes) -> bytes:
    """The data set of a PS3.10 file."""
    assert file[128:132] == b"DICM"
    return file[144 + int.from_bytes(file[140:144], "little") :]
