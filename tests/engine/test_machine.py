"""Precision and threads follow from the CPU; a run keeps its choice."""

import json
import os

import pytest
import torch
from ember_reid.config import load_config
from ember_reid.data import images
from ember_reid.engine import machine
from ember_reid.engine.build import build_amp_dtype, read_test_config
from ember_reid.engine.cpu.build import settle_machine, speed_up_convolutions

from ember_reid import main

CPU = torch.device("cpu")
INTEL_WITHOUT = "processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512_vnni\n"
FP16 = ("SOLVER.FP16", "True")


@pytest.fixture
def processor(monkeypatch, tmp_path):
    """processor(text): the content of /proc/cpuinfo from here on; torch supports bfloat16."""
    monkeypatch.delenv(machine.NO_BF16, raising=False)
    path = tmp_path / "cpuinfo"
    monkeypatch.setattr(machine, "PROCESSORS", path)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    return path.write_text


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (INTEL_WITHOUT, ""),
        ("flags\t\t: fpu avx512f avx512_bf16 avx512_vnni\n", "avx512_bf16"),
        ("flags\t\t: avx512_bf16 amx_tile amx_bf16\nflags\t\t: fpu\n", "amx_bf16"),
        ("Features\t: fp asimd sve bf16 i8mm\n", "bf16"),
        ("Features\t: fp asimd\n", ""),
        ("model name\t: bf16\n", ""),
        ("", ""),
    ],
)
def test_the_instruction_set_decides(processor, text, found):
    processor(text)
    assert machine.find_bf16_instructions() == found
    expected = "bfloat16" if found else "float32"
    assert machine.choose_cpu_precision("auto") == expected
    reason = f"the processor has {found}" if found else "no bfloat16 instructions"
    assert machine.describe_cpu_precision(expected) == f"{expected} ({reason})"


def test_without_proc_or_without_support_in_torch_it_is_float32(processor, monkeypatch):
    # The file does not exist.
    assert machine.find_bf16_instructions() == ""
    processor("flags\t: avx512_bf16\n")
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    assert machine.find_bf16_instructions() == ""


@pytest.mark.parametrize(("value", "found"), [("1", ""), ("0", "avx512_bf16"), ("", "avx512_bf16")])
def test_the_environment_variable_switches_bfloat16_off(processor, monkeypatch, value, found):
    processor("flags\t: avx512_bf16\n")
    monkeypatch.setenv(machine.NO_BF16, value)
    assert machine.find_bf16_instructions() == found


@pytest.mark.parametrize("flags", ["avx512f", "avx512_bf16"])
def test_an_explicit_key_wins(processor, flags):
    processor(f"flags\t: {flags}\n")
    key = "SOLVER.CPU_PRECISION"
    assert build_amp_dtype(load_config(None, [*FP16, key, "bfloat16"]), CPU) == torch.bfloat16
    assert build_amp_dtype(load_config(None, [*FP16, key, "float32"]), CPU) is None
    assert build_amp_dtype(load_config(None, [key, "bfloat16"]), CPU) is None


def precisions(folder) -> list[str]:
    return [start["precision"] for start in json.loads((folder / "environment.json").read_text())]


def test_a_resumed_run_keeps_its_precision_and_a_test_chooses_again(
    processor, train, tiny_recipe, tmp_path
):
    processor(INTEL_WITHOUT)
    words = (*FP16, "SOLVER.EVAL_PERIOD", "9")
    folder = train(tmp_path / "run", *words, "SOLVER.MAX_EPOCHS", "1")
    assert precisions(folder) == ["float32 (no bfloat16 instructions)"]
    line = (
        "precision float32 (no bfloat16 instructions), convolutions 0 fast ones (float32 on a CPU)"
    )
    assert line in (folder / "log.txt").read_text()

    # Continued on another machine.
    processor("flags\t: avx512_bf16\n")
    arguments = ["-c", str(tiny_recipe), "--resume", *words, "OUTPUT_DIR", str(folder)]
    assert main.main([*arguments, "SOLVER.MAX_EPOCHS", "2"]) == 0
    assert precisions(folder)[1] == "float32 (the processor has avx512_bf16)"
    assert load_config(folder / "config.yml").SOLVER.CPU_PRECISION == "float32"

    weights = ["TEST.WEIGHT", str(folder / "checkpoints" / "last.pt")]
    assert build_amp_dtype(read_test_config(None, weights), CPU) == torch.bfloat16
    explicit = [*weights, "SOLVER.CPU_PRECISION", "float32"]
    assert build_amp_dtype(read_test_config(None, explicit), CPU) is None


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 64),
        ({"cpu.max": "max 100000\n"}, 64),
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "10000 100000\n"}, 1),
        ({"cpu.max": "9900000 100000\n"}, 64),
        ({"cpu.max": "damaged"}, 64),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 64),
    ],
)
def test_the_quota_of_a_container_limits_the_cpus(monkeypatch, tmp_path, files, expected):
    monkeypatch.setattr(images, "CONTROL_GROUPS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert images.num_cpus() == expected


@pytest.mark.parametrize(
    ("requested", "processes", "expected"), [(0, 1, 3), (0, 2, 1), (0, 9, 1), (5, 1, 5), (5, 2, 5)]
)
def test_the_number_of_threads(monkeypatch, requested, processes, expected):
    monkeypatch.setattr(machine, "num_cpus", lambda: 3)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert machine.choose_num_threads(requested, processes) == expected


def test_torch_gets_no_more_threads_than_there_are_cpus(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    for count in (3, 8, 64):
        monkeypatch.setattr(machine, "num_cpus", lambda count=count: count)
        machine.limit_threads()
    assert chosen == [3]


def test_a_resumed_run_keeps_its_threads(processor, monkeypatch, tmp_path):
    processor(INTEL_WITHOUT)
    words = ["OUTPUT_DIR", str(tmp_path)]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(machine, "num_cpus", lambda: 3)
    first = settle_machine(load_config(None, words), CPU, resume=False)
    assert first.NUM_THREADS == 3
    # Without mixed precision, nothing has to be chosen.
    assert first.SOLVER.CPU_PRECISION == "auto"
    (tmp_path / "config.yml").write_text(first.dump())

    monkeypatch.setattr(machine, "num_cpus", lambda: 5)
    assert settle_machine(load_config(None, words), CPU, resume=True).NUM_THREADS == 3
    assert settle_machine(load_config(None, words), CPU, resume=False).NUM_THREADS == 5
    explicit = load_config(None, [*words, "NUM_THREADS", "2"])
    assert settle_machine(explicit, CPU, resume=True).NUM_THREADS == 2
    assert settle_machine(load_config(None, words), torch.device("cuda"), resume=False) == (
        load_config(None, words)
    )


@pytest.mark.parametrize(
    ("words", "mode", "expected"),
    [
        ((), "eager", "1 fast ones (float32 on a CPU)"),
        (FP16, "eager", "torch"),
        ((), "compile", "torch"),
        (("SOLVER.CPU_CONVOLUTIONS", "torch"), "eager", "torch (SOLVER.CPU_CONVOLUTIONS)"),
    ],
)
def test_only_float32_on_a_cpu_trains_with_fast_convolutions(processor, words, mode, expected):
    processor("flags\t: avx512_bf16\n")
    conv = torch.nn.Conv2d(128, 128, 3, padding=1, bias=False)
    model = torch.nn.Sequential(conv)
    assert speed_up_convolutions(load_config(None, words), model, CPU, mode=mode) == expected
    assert (type(conv) is torch.nn.Conv2d) == expected.startswith("torch")
    assert speed_up_convolutions(load_config(None), model, torch.device("cuda"), mode=mode) == (
        "torch"
    )
