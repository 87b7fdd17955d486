"""The evaluation as lines of the AutoDiag-AI table, for the command line and the cards."""

from __future__ import annotations

from typing import Any

Line = tuple[str, str, str, str]
"""(what, figure, n and interval, AutoDiag-AI's)."""


def headings(document: dict[str, Any]) -> Line:  # Any: JSON-able
    """Of the four columns."""
    return "what", "result", "n, 95 % interval", document.get("reported_by", "AutoDiag-AI, on patients")


def table_rows(document: dict[str, Any]) -> list[Line]:  # Any: JSON-able
    """Every line, every figure with its n and 95 % interval.

    Evaluations of cells bring their `lines`; those of the uterine pipeline are made from its results.
    """
    if "lines" in document:
        return [(str(what), str(result), str(n), str(other)) for what, result, n, other in document["lines"]]
    results, reported = document["results"], document["reported"]
    filter_cv, filter_new = results["filter"]["cross_validated"], results["filter"]["untouched_shipped"]
    cv, new = results["cross_validated"], results["untouched"]
    return [
        ("Filter, accuracy, cross-validated", _percent(filter_cv["accuracy"]), _slices(filter_cv),
         _percent(reported["filter_accuracy"])),
        ("Filter, accuracy, untouched, shipped", _percent(filter_new["accuracy"]), _slices(filter_new), ""),
        *_case_rows("Cross-validated by patient", cv, _percent(reported["cross_validated_accuracy"])),
        ("Cross-validated, indeterminate", _percent(cv["indeterminate"]["estimate"]),
         _cases(cv["indeterminate"]), ""),
        ("Cross-validated, accuracy outside the band", _percent(cv["outside_the_band"]["estimate"]),
         _cases(cv["outside_the_band"]), ""),
        ("Untouched, accuracy, mean over models", _percent(new["mean_over_models"]["accuracy"]["estimate"]),
         _cases(new["mean_over_models"]["accuracy"]), _percent(reported["untouched_accuracy"])),
        *_case_rows("Untouched, ensemble by case", new["ensemble"], ""),
        *_case_rows("Untouched, shipped networks", new["shipped"], ""),
        ("Untouched, specialist radiologist", "", "",
         f"{_percent(reported['radiologist_accuracy'])} (27/32)"),
    ]  # fmt: skip


def _case_rows(name: str, row: dict[str, Any], reported: str) -> list[Line]:  # Any: JSON-able
    mean = row["mean"]
    return [
        (f"{name}, accuracy", _percent(row["accuracy"]["estimate"]), _cases(row["accuracy"]), reported),
        (f"{name}, sensitivity", _percent(row["sensitivity"]["estimate"]), _cases(row["sensitivity"]), ""),
        (f"{name}, specificity", _percent(row["specificity"]["estimate"]), _cases(row["specificity"]), ""),
        (f"{name}, their mean", _percent(mean["estimate"]),
         f"{_percent(mean['lower'])} to {_percent(mean['upper'])}", ""),
        (f"{name}, AUROC", "-" if row["auroc"] is None else f"{row['auroc']:.3f}", "", ""),
    ]  # fmt: skip


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"


def _cases(row: dict[str, Any]) -> str:  # Any: JSON-able
    hits = f"{row['hits']:g}/{row['n']}"
    bound = "" if row["bound"] is None else f"; none missed: at least {_percent(row['bound'])}"
    return f"{hits}, {_percent(row['lower'])} to {_percent(row['upper'])}{bound}"


def _slices(row: dict[str, Any]) -> str:  # Any: JSON-able
    return (
        f"{row['slices']} slices of {row['cases']} cases, "
        f"{_percent(row['lower'])} to {_percent(row['upper'])}"
    )
