"""Parts 2 to 5 of `ember-reid check-gpu`, on a machine with a GPU.

Each part is a process of its own, because a process that has used CUDA cannot fork.
"""

import pytest
from ember_reid.engine.run.cluster import find_gpu_problem
from ember_reid.tools.check_gpu.parts import PARTS, run_part

PROBLEM = find_gpu_problem()
pytestmark = pytest.mark.skipif(bool(PROBLEM), reason=PROBLEM)


@pytest.mark.parametrize("name", ["recipes", "parity", "waiting", "evaluation"])
def test_a_part_passes_on_this_gpu(name, tmp_path):
    result = run_part(name, tmp_path, rehearse=False, limit=PARTS[name].limit)
    failed = "\n".join(str(check) for check in result.checks if not check.passed)
    assert result.passed, f"{result.error}\n{failed}"
    assert result.checks
