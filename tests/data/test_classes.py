"""Which identity each class of a training set is."""

from ember_reid.data.datasets import load_splits
from ember_reid.data.records import Record, Splits, merge_train, merged_classes


def test_classes_keep_their_data_set_and_label():
    # Identity 1 was held out.
    records = tuple(Record((), pid, 0) for pid in (2, 0, 2))
    first = Splits(records, (), (), name="a", train_labels=("0007", "0009", "0020"))
    second = Splits((Record((), 0, 0),), (), (), name="b", train_labels=("0007",))
    assert merged_classes([first, second]) == (("a", "0007"), ("a", "0020"), ("b", "0007"))
    assert [record.pid for record in merge_train([first, second])] == [1, 0, 1, 2]


def test_words_of_own_data_are_kept(tmp_path):
    lines = [
        "path,pid,split",
        "1.jpg,mia,train",
        "2.jpg,ben,train",
        "3.jpg,eva,query",
        "4.jpg,eva,gallery",
    ]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    for number in range(1, 5):
        (tmp_path / f"{number}.jpg").touch()
    splits = load_splits(f"csv:{tmp_path / 'list.csv'}", tmp_path)
    assert merged_classes([splits]) == (("list", "ben"), ("list", "mia"))
