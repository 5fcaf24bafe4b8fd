"""One self-contained page of what a study found.

Nothing is estimated here: every figure on the page is a value of a result that a caller has, too.
"""
