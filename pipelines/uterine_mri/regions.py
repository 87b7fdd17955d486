"""The region that a Grad-CAM map marks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]


def marked(values: npt.NDArray[np.float32], threshold: float, *, share: float, at_most: int) -> Mask:
    """Where the map reaches `threshold`, in its largest connected parts.

    `values` is (slices, rows, columns), zero on slices that were not kept. Parts are connected in
    3-D by faces; those smaller than `share` of the largest are left out, as are all after `at_most`.
    """
    from scipy import ndimage

    mask = values >= threshold
    if not mask.any():
        return mask
    box = tuple(slice(int(at.min()), int(at.max()) + 1) for at in np.nonzero(mask))
    labels, count = ndimage.label(mask[box])
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    ranked = np.argsort(-sizes, kind="stable")[:at_most]
    chosen = [int(label) for label in ranked if sizes[label] >= max(1.0, share * sizes.max())]
    kept = np.zeros_like(mask)
    kept[box] = np.isin(labels, chosen)
    return kept
