"""The mathematics: what is read from two models, which layers meet, how widths are fitted, how difference is measured.

Nothing here knows of training loops, data sets or files.
"""
