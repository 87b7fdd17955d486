"""How well cells are sorted: confusion, sensitivity and specificity by class, with intervals.

Cells of one field are alike, so where groups are known intervals come from drawing whole groups;
else they are Clopper and Pearson's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dicom_node.train.statistics import Proportion, by_groups, exact, ranking

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Line = tuple[str, str, str, str]
"""(what, figure, n and interval, reported elsewhere)."""
TEMPERATURES = np.exp(np.linspace(np.log(0.4), np.log(5.0), 120))


def softmax(logits: npt.ArrayLike, temperature: float = 1.0) -> Floats:
    """(n, classes) probabilities."""
    scaled = np.asarray(logits, np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def best_temperature(logits: Floats, truth: Ints) -> float:
    """The one under which the truth is likeliest (Guo et al., ICML 2017)."""
    rows = np.arange(len(truth))
    losses = [-np.log(softmax(logits, t)[rows, truth] + 1e-12).mean() for t in TEMPERATURES]
    return round(float(TEMPERATURES[int(np.argmin(losses))]), 3)


def calibration_error(probability: Floats, truth: Ints, bins: int = 15) -> float:
    """Expected calibration error: mean distance of confidence from accuracy, over bins of confidence."""
    confidence, right = probability.max(axis=1), probability.argmax(axis=1) == truth
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    apart = [
        abs(confidence[place == b].mean() - right[place == b].mean()) * (place == b).sum()
        for b in range(bins) if (place == b).any()
    ]  # fmt: skip
    return float(sum(apart) / len(truth))


def confusion(truth: Ints, called: Ints, classes: int) -> Ints:
    """(classes, classes): rows are the truth."""
    table = np.zeros((classes, classes), np.int64)
    np.add.at(table, (truth, called), 1)
    return table


def by_class(truth: Ints, called: Ints, names: Sequence[str]) -> dict[str, Any]:  # Any: JSON-able
    """Sensitivity and specificity of each class against all others."""
    found: dict[str, Any] = {}
    for at, name in enumerate(names):
        mine, said = truth == at, called == at
        found[name] = {
            "sensitivity": exact(int((mine & said).sum()), int(mine.sum())).to_json(),
            "specificity": exact(int((~mine & ~said).sum()), int((~mine).sum())).to_json(),
        }
    return found


def ranked(score: Floats, positive: Bools, negative: Bools, group: Ints) -> dict[str, float | int | None]:
    """AUROC with its interval by groups."""
    used = positive | negative
    value, truth, groups = score[used], positive[used], group[used]
    middle, low, high = by_groups(
        lambda rows: ranking(value[rows][truth[rows]], value[rows][~truth[rows]]), groups
    )
    return {
        "auroc": _finite(middle), "lower": _finite(low), "upper": _finite(high),
        "positive": int(positive.sum()), "negative": int(negative.sum()), "groups": len(np.unique(groups)),
    }  # fmt: skip


def _finite(value: float) -> float | None:
    return None if value != value else round(value, 4)


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def share_line(what: str, row: dict[str, Any], reported: str = "") -> Line:  # Any: JSON-able
    """A proportion as a line of the table, with the bound where nothing was missed."""
    bound = "" if row.get("bound") is None else f"; none missed: at least {percent(row['bound'])}"
    interval = f"{row['hits']:g}/{row['n']}, {percent(row['lower'])} to {percent(row['upper'])}{bound}"
    return (what, percent(row["estimate"]), interval, reported)


def auroc_line(what: str, row: dict[str, Any], unit: str = "groups") -> Line:  # Any: JSON-able
    if row["auroc"] is None:
        return (what, "-", f"{row['positive']} against {row['negative']}", "")
    return (
        what, f"{row['auroc']:.3f}",
        f"{row['positive']} against {row['negative']} of {row['groups']} {unit}, "
        f"{row['lower']:.3f} to {row['upper']:.3f}", "",
    )  # fmt: skip


def mean_line(what: str, values: tuple[float, float, float], n: str) -> Line:
    """An estimate with an interval by bootstrap."""
    return (what, percent(values[0]), f"{n}, {percent(values[1])} to {percent(values[2])}", "")


def as_share(hits: int, n: int) -> Proportion:
    return exact(hits, n)
