"""The bundles of the uterine pipeline, by name. No imports: the command line reads this."""

FILTER = "uterine_tumor_filter"
EVALUATOR = "uterine_sarcoma_evaluator"
