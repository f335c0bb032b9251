"""The instruction set decides whether a CPU trains in bfloat16; a run keeps its precision."""

import json

import pytest
import torch
from ember_reid.config import load_config
from ember_reid.engine import precision
from ember_reid.engine.build import build_amp_dtype, read_test_config

from ember_reid import main

CPU = torch.device("cpu")
INTEL_WITHOUT = "processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512_vnni\n"
FP16 = ("SOLVER.FP16", "True")


@pytest.fixture
def processor(monkeypatch, tmp_path):
    """processor(text): the content of /proc/cpuinfo from here on; torch supports bfloat16."""
    monkeypatch.delenv(precision.NO_BF16, raising=False)
    path = tmp_path / "cpuinfo"
    monkeypatch.setattr(precision, "PROCESSORS", path)
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
    assert precision.find_bf16_instructions() == found
    expected = "bfloat16" if found else "float32"
    assert precision.choose_cpu_precision("auto") == expected
    reason = f"the processor has {found}" if found else "no bfloat16 instructions"
    assert precision.describe_cpu_precision(expected) == f"{expected} ({reason})"


def test_without_proc_or_without_support_in_torch_it_is_float32(processor, monkeypatch):
    # The file does not exist.
    assert precision.find_bf16_instructions() == ""
    processor("flags\t: avx512_bf16\n")
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    assert precision.find_bf16_instructions() == ""


@pytest.mark.parametrize(("value", "found"), [("1", ""), ("0", "avx512_bf16"), ("", "avx512_bf16")])
def test_the_environment_variable_switches_bfloat16_off(processor, monkeypatch, value, found):
    processor("flags\t: avx512_bf16\n")
    monkeypatch.setenv(precision.NO_BF16, value)
    assert precision.find_bf16_instructions() == found


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
    assert "precision float32 (no bfloat16" in (folder / "log.txt").read_text()

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
