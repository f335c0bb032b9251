from numpy import ndarray

Arrays = tuple[ndarray, ...]

def add_jaccard(
    tile: ndarray,
    row_starts: ndarray,
    sparse: Arrays,
    scales: ndarray,
    lambda_value: float,
    num_threads: int,
) -> None: ...
def rank_by_bounds(
    features: Arrays,
    constant: float,
    resolution: float,
    row_starts: ndarray,
    sparse: Arrays,
    nearest: ndarray,
    beyond: ndarray,
    scales: ndarray,
    lambda_value: float,
    numbers: ndarray,
    matches: Arrays,
    ranks: ndarray,
    num_threads: int,
) -> bytearray: ...
