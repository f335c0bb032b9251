from numpy import ndarray

def count_ranks(
    distances: ndarray,
    queries: ndarray,
    starts: ndarray,
    columns: ndarray,
    excluded_starts: ndarray,
    excluded_columns: ndarray,
    junk: ndarray,
    ranks: ndarray,
    num_threads: int,
) -> int: ...
