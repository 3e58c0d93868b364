"""Runs dask graphs whose intermediate values stay in S3; `run.py` opens with the life of a graph.

`plan.py`, `board.py`, `grow.py` and `costs.py` decide what runs where and when, without any I/O; `run.py` does it.
"""
