"""Damaged, non-finite and foreign checkpoints are detected before they are used."""

import shutil

import pytest
import torch
from ember_reid.engine.checkpoint import (
    NonFiniteWeights,
    load_checkpoint,
    load_last,
    save_checkpoint,
)
from ember_reid.engine.integrity import check_optimizer_state, checksum, compute_checksums
from torch import nn

from ember_reid import main


def rewrite(path, change) -> None:
    """Change the content of a checkpoint without updating its checksums."""
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)


def resume(recipe, folder, *words) -> int:
    return main.main(["-c", str(recipe), "--resume", *words, "OUTPUT_DIR", str(folder)])


def test_checksums_are_those_of_zlib():
    assert checksum(torch.tensor([1, 2, 3], dtype=torch.uint8)) == 0x55BC801D
    assert checksum(torch.tensor([[1, 3], [2, 0]], dtype=torch.uint8).T[:, 0]) == checksum(
        torch.tensor([1, 3], dtype=torch.uint8)
    )
    content = {"a": [torch.ones(1)], "b": {0: torch.tensor(2.0, dtype=torch.bfloat16)}, "c": 1}
    assert list(compute_checksums(content)) == ["a/0", "b/0"]


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c: c["model"]["w"].mul_(2), "model/w differs from what was saved"),
        (lambda c: c["model"].pop("w"), "model/w is missing"),
        (lambda c: c["model"].update(x=torch.ones(1)), "model/x differs from what was saved"),
    ],
)
def test_a_changed_tensor_is_named(tmp_path, change, message):
    path = tmp_path / "a.pt"
    save_checkpoint(path, {"model": {"w": torch.ones(3)}})
    assert torch.equal(load_checkpoint(path)["model"]["w"], torch.ones(3))
    rewrite(path, change)
    with pytest.raises(ValueError, match=f"a.pt is damaged: {message}"):
        load_checkpoint(path)


def test_checkpoints_without_checksums_are_read(tmp_path):
    path = tmp_path / "a.pt"
    save_checkpoint(path, {"model": {"w": torch.ones(3)}})
    rewrite(path, lambda content: content.pop("checksums"))
    assert "checksums" not in load_checkpoint(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_weights_are_not_saved(tmp_path, value):
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"model": {"w": torch.ones(2)}})
    with pytest.raises(NonFiniteWeights, match="the weights are not finite .model/w."):
        save_checkpoint(path, {"model": {"w": torch.tensor([1.0, value])}})
    assert torch.equal(load_checkpoint(path)["model"]["w"], torch.ones(2))


def test_a_non_finite_or_missing_last_checkpoint_is_replaced_by_the_previous_one(tmp_path, caplog):
    last, previous = tmp_path / "last.pt", tmp_path / "previous.pt"
    for value in (1.0, 2.0):
        save_checkpoint(last, {"model": {"w": torch.tensor([value])}}, previous=previous)

    def ruin(content) -> None:
        content["model"]["w"].fill_(float("nan"))
        content.pop("checksums")

    rewrite(last, ruin)
    path, content = load_last(tmp_path)
    assert path == previous and content["model"]["w"].item() == 1.0
    assert "last.pt has NaN or infinite values in model/w; continuing from" in caplog.text
    last.unlink()
    assert load_last(tmp_path)[0] == previous
    assert "there is no" in caplog.text
    previous.unlink()
    with pytest.raises(FileNotFoundError, match="start without --resume"):
        load_last(tmp_path)


def trained(kind):
    net = nn.Linear(3, 2)
    optimizer = kind(net.parameters(), lr=0.1)
    net(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return optimizer


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: s["state"][0].update(exp_avg=torch.ones(1)), r"exp_avg of shape \(1,\)"),
        (lambda s: s["state"][0].update(step=torch.ones(2)), r"step of shape \(2,\)"),
        (lambda s: s["state"][0].pop("exp_avg_sq"), "without exp_avg_sq"),
        (lambda s: s["state"][0].update(exp_avg=torch.ones(2, 3).int()), "of type torch.int32"),
        (lambda s: s["param_groups"].append({}), "2 parameter groups, this run has 1"),
        (lambda s: s["param_groups"][0]["params"].pop(), "1 parameters in a group"),
        (lambda s: s["param_groups"][0].pop("betas"), "another optimizer .without betas."),
    ],
)
def test_optimizer_states_are_compared_before_they_are_loaded(change, message):
    optimizer = trained(torch.optim.AdamW)
    state = optimizer.state_dict()
    check_optimizer_state(optimizer, state)
    state["state"][0] = dict(state["state"][0])
    change(state)
    with pytest.raises(ValueError, match=message):
        check_optimizer_state(optimizer, state)


def test_a_test_refuses_a_damaged_checkpoint(tiny_run, tmp_path, capfd):
    path = tmp_path / "best.pt"
    shutil.copy(tiny_run / "checkpoints" / "best.pt", path)
    rewrite(path, lambda content: next(iter(content["model"].values())).mul_(1.5))
    assert main.main(["-t", "TEST.WEIGHT", str(path), "OUTPUT_DIR", str(tmp_path / "out")]) == 2
    err = capfd.readouterr().err
    assert "best.pt is damaged" in err and err.count("\n") == 1


def test_resuming_names_the_key_that_changes_what_is_learned(
    tiny_recipe, tiny_run, tmp_path, capfd
):
    folder = shutil.copytree(tiny_run, tmp_path / "run")
    assert resume(tiny_recipe, folder, "SOLVER.OPTIMIZER", "sgd") == 2
    assert "SOLVER.OPTIMIZER adam -> sgd" in capfd.readouterr().err
    assert resume(tiny_recipe, folder, "LOSS.TRIPLET.WEIGHT", "0.5") == 2
    assert "LOSS.TRIPLET.WEIGHT 1.0 -> 0.5" in capfd.readouterr().err


def test_other_identities_are_refused(tiny_recipe, tiny_run, tmp_path, capfd):
    folder = shutil.copytree(tiny_run, tmp_path / "run")
    last = folder / "checkpoints" / "last.pt"
    rewrite(last, lambda content: content["classes"].reverse())
    assert resume(tiny_recipe, folder) == 2
    assert "class 0 is identity" in capfd.readouterr().err


def test_logging_and_more_epochs_are_accepted_with_one_line(tiny_recipe, tiny_run, tmp_path, capfd):
    folder = shutil.copytree(tiny_run, tmp_path / "run")
    words = ("SOLVER.MAX_EPOCHS", "3", "SOLVER.LOG_PERIOD", "1")
    assert resume(tiny_recipe, folder, *words) == 0
    line = "resuming with changes: SOLVER.LOG_PERIOD 2 -> 1; SOLVER.MAX_EPOCHS 2 -> 3"
    assert capfd.readouterr().out.count(line) == 1


def test_every_byte_that_is_read_has_a_checksum(tiny_run, tmp_path):
    """Bytes without an effect, such as the padding between the members, may change."""
    data = (tiny_run / "checkpoints" / "best.pt").read_bytes()
    original = load_checkpoint(tiny_run / "checkpoints" / "best.pt")
    plain = [repr(original[key]) for key in ("config", "classes", "progress")]
    path = tmp_path / "best.pt"
    messages = set()
    for start in range(0, len(data), len(data) // 40):
        changed = bytearray(data)
        changed[start] ^= 4
        path.write_bytes(changed)
        try:
            content = load_checkpoint(path)
        except ValueError as error:
            messages.add(str(error).partition(" is damaged")[2].partition("(")[0])
        else:
            assert [repr(content[key]) for key in ("config", "classes", "progress")] == plain
            assert compute_checksums(content) == original["checksums"]
    assert ": 'archive/data.pkl' differs from what was saved" in messages


@pytest.mark.parametrize(
    "old, new",
    [(b"BASE_LR: 0.00035", b"BASE_LR: 0.00095"), (b"market1501", b"market1502")],
    ids=["config", "classes"],
)
def test_damage_outside_of_the_tensors_is_detected(tiny_run, tmp_path, old, new):
    data = (tiny_run / "checkpoints" / "best.pt").read_bytes()
    path = tmp_path / "best.pt"
    path.write_bytes(data.replace(old, new, 1))
    with pytest.raises(ValueError, match="damaged: 'archive/data.pkl' differs from what was saved"):
        load_checkpoint(path)


def test_archives_without_checksums_are_read(tmp_path):
    path = tmp_path / "a.pt"
    computes = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        save_checkpoint(path, {"model": {"w": torch.ones(3)}})
    finally:
        torch.serialization.set_crc32_options(computes)
    assert torch.equal(load_checkpoint(path)["model"]["w"], torch.ones(3))


@pytest.mark.parametrize("part", ["model", "criterion"])
def test_a_resumed_run_does_not_convert_weights(tiny_recipe, tiny_run, tmp_path, capfd, part):
    words = ("LOSS.CENTER.WEIGHT", "0.1")
    folder = tmp_path / "run"
    recipe = ["-c", str(tiny_recipe), *words, "SOLVER.MAX_EPOCHS", "1", "OUTPUT_DIR", str(folder)]
    assert main.main(recipe) == 0

    def round_first_tensor(content) -> None:
        name = next(name for name, value in content[part].items() if value.is_floating_point())
        content[part][name] = content[part][name].long()
        content.pop("checksums")

    rewrite(folder / "checkpoints" / "last.pt", round_first_tensor)
    capfd.readouterr()
    assert resume(tiny_recipe, folder, *words) == 2
    err = capfd.readouterr().err
    assert "of type torch.int64, this run needs torch.float32" in err and err.count("\n") == 1
