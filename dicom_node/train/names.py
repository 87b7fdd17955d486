"""The bundles of the uterine pipeline, by name. No imports: the command line reads this."""

FILTER = "uterine_tumor_filter"
EVALUATOR = "uterine_sarcoma_evaluator"

UNTOUCHED_SEED = 2026
"""Of the later cases. Those of seed 0 were looked at while the recipe was made; these were not."""
