from numpy import ndarray

Arrays = tuple[ndarray, ...]

def update_lists(
    tile: ndarray,
    first: int,
    low: int,
    errors: ndarray,
    reaches: ndarray,
    slack: float,
    near_arrays: Arrays,
    far_arrays: Arrays,
    num_threads: int,
) -> None: ...
def decode_tile(
    products: ndarray,
    row_scales: ndarray,
    row_squares: ndarray,
    scales: ndarray,
    squares: ndarray,
    tile: ndarray,
    num_threads: int,
) -> None: ...
def pair_distances(
    features: Arrays,
    constant: float,
    resolution: float,
    left: ndarray,
    right: ndarray,
    distances: ndarray,
    num_threads: int,
) -> None: ...
def refine(
    features: Arrays,
    constant: float,
    resolution: float,
    first: int,
    last: int,
    near: ndarray,
    near_bounds: ndarray,
    far: ndarray,
    far_bounds: ndarray,
    nearest: ndarray,
    distances: ndarray,
    farthest: ndarray,
    certain: ndarray,
    num_threads: int,
) -> None: ...
