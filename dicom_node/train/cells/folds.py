"""Splits by group, with each class spread over the folds as evenly as its groups allow."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def by_group(label: Ints, group: Ints, folds: int, seed: int) -> Ints:
    """(n,) the fold of each row; a group is wholly in one.

    Groups are dealt out from the largest share of a rare class to the smallest, each to the fold that
    has least of what it brings: so four groups with the rarest class go to four folds.
    """
    rng = np.random.default_rng(seed)
    groups = np.unique(group)
    table = np.zeros((len(groups), int(label.max()) + 1))
    np.add.at(table, (np.searchsorted(groups, group), label), 1)
    share = table / np.maximum(table.sum(axis=0), 1)
    order = np.argsort(-(share.max(axis=1) + 1e-9 * rng.random(len(groups))), kind="stable")
    held = np.zeros((folds, table.shape[1]))
    fold_of = np.zeros(len(groups), np.int64)
    for at in order:
        would = [((held[f] + share[at]) ** 2).sum() - (held[f] ** 2).sum() for f in range(folds)]
        fold_of[at] = int(np.argmin(would))
        held[fold_of[at]] += share[at]
    return fold_of[np.searchsorted(groups, group)]
