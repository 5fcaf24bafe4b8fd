"""The data of the two worked examples: prepared, explored, saved.

`prepare_example1` (instruction formats) and `prepare_example2` (grade-school reasoning), in
`whyprompt.examples.prepare`, read a public data set by name or from a local copy. Where neither can be had
they generate verifiable tasks instead, and what they return says which of these it was. `explore` describes a
prepared table, and `exploration_charts` draws it.
"""
