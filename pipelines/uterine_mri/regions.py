"""The region that a Grad-CAM map marks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]


def marked(
    values: npt.NDArray[np.float32], threshold: float, *, share: float, at_most: int,
    thinnest_mm: float = 0.0, spacing_mm: tuple[float, float] = (1.0, 1.0),
) -> Mask:  # fmt: skip
    """Where the map reaches `threshold`, in its largest connected parts.

    `values` is (slices, rows, columns), zero on slices that were not kept; `spacing_mm` is of rows and
    columns. What is narrower than `thinnest_mm` on its slice is left out, unless nothing else is marked.
    Parts are connected in 3-D by faces; those smaller than `share` of the largest are left out, as are
    all after `at_most`.
    """
    from scipy import ndimage

    mask = values >= threshold
    if not mask.any():
        return mask
    box = tuple(slice(int(at.min()), int(at.max()) + 1) for at in np.nonzero(mask))
    within = mask[box]
    smooth = np.stack([opened(plane, thinnest_mm / 2, spacing_mm) for plane in within])
    labels, count = ndimage.label(smooth if smooth.any() else within)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    ranked = np.argsort(-sizes, kind="stable")[:at_most]
    chosen = [int(label) for label in ranked if sizes[label] >= max(1.0, share * sizes.max())]
    kept = np.zeros_like(mask)
    kept[box] = np.isin(labels, chosen)
    return kept


def opened(mask: Mask, radius_mm: float, spacing_mm: tuple[float, float]) -> Mask:
    """All discs of `radius_mm` that fit into a (rows, columns) mask.

    Beyond the outermost centres of its cells a map goes on unchanged to the edge of the field, which makes
    straight spurs of whatever it has there; no disc fits into the thin ones.
    """
    from scipy import ndimage

    if not mask.any():
        return mask
    depth = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=spacing_mm)
    core = depth > radius_mm
    if not core.any():
        return np.zeros_like(mask)
    near: Mask = ndimage.distance_transform_edt(~core, sampling=spacing_mm) <= radius_mm
    fitting: Mask = (near & (depth > 0))[1:-1, 1:-1]
    return fitting
