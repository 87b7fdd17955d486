"""Networks that see one cell, or one field of cells, at a time: their data, training and evaluation.

`crops` reads labelled pictures, `folds` splits them, `augment` and `learn` train, `judge` measures,
`bundle` writes weights and card. `tasks` says what is learned from which labels.
"""
