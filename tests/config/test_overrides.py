"""Configuration words of a command line."""

import pytest
from ember_reid.config import expand_overrides, join_negative_values, load_config

from ember_reid import main


def test_three_ways_to_write_a_key_can_be_mixed():
    words = ["SOLVER.BASE_LR", "1e-3", "SEED=7", "epochs=20", "OUTPUT_DIR", "a=b"]
    assert expand_overrides(words) == [
        *("SOLVER.BASE_LR", "1e-3", "SEED", "7"),
        *("SOLVER.MAX_EPOCHS", "20", "OUTPUT_DIR", "a=b"),
    ]
    assert expand_overrides(expand_overrides(words)) == expand_overrides(words)


def test_short_names():
    words = "model=resnet18 weights=none epochs=3 batch=8 device=cpu out=runs/x=y seed=5".split()
    cfg = load_config(None, words)
    assert (cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.WEIGHTS) == ("resnet18", "none")
    assert (cfg.SOLVER.MAX_EPOCHS, cfg.SOLVER.IMS_PER_BATCH) == (3, 8)
    assert (cfg.DEVICE, cfg.OUTPUT_DIR, cfg.SEED) == ("cpu", "runs/x=y", 5)


def test_weights_and_batch_of_a_test():
    words = expand_overrides(["weights=a.pt", "batch=9"], testing=True)
    assert words == ["TEST.WEIGHT", "a.pt", "TEST.IMS_PER_BATCH", "9"]


def test_data_is_a_name_a_csv_file_or_a_folder_and_is_tested_too(tmp_path):
    def data(*words):
        cfg = load_config("syncbn/market2partilibds", words)
        return cfg.DATASETS.NAMES, cfg.DATASETS.TESTS

    assert data("data=dukemtmc") == (("dukemtmc",), ())
    assert data("data=cows/list.csv") == (("csv:cows/list.csv",), ())
    assert data(f"data={tmp_path}") == ((f"folder:{tmp_path}",), ())
    assert data("data=msmt17:/data/x", "DATASETS.TESTS", "veri776") == (
        ("msmt17:/data/x",),
        ("veri776",),
    )


@pytest.mark.parametrize(
    "words, message",
    [
        (["SEED", "1", "DEVICE"], "'DEVICE' on the command line has no value; write KEY VALUE"),
        (["epoch=3"], "unknown short name 'epoch'; allowed: batch, data, device, epochs, model"),
        (["SOLVER.BASE_LT=1"], "unknown key SOLVER.BASE_LT in the command line, similar keys: SOL"),
    ],
)
def test_errors(words, message):
    with pytest.raises(ValueError, match=message):
        load_config(None, words)


def test_negative_values_reach_the_configuration():
    assert join_negative_values(["SOLVER.BASE_LR", "-1e-3", "-t", "--debug", "SEED", "-.5"]) == [
        *("SOLVER.BASE_LR=-1e-3", "-t", "--debug", "SEED=-.5")
    ]
    arguments = main.parse_arguments(["-c", "x.yml", "SOLVER.BASE_LR", "-1e-3", "--resume"])
    assert (arguments.overrides, arguments.resume) == (["SOLVER.BASE_LR=-1e-3"], True)
