import os
import signal
import sqlite3
import subprocess
import sys
import threading
from importlib.util import find_spec

import numpy as np
import pytest
from ember_reid.engine.deploy.metadata import ExportMetadata
from ember_reid.tools.common.stored_network import StoredNetwork
from ember_reid.tools.gallery.search import search_all, search_index
from ember_reid.tools.gallery.snapshot import query
from ember_reid.tools.gallery.store import Entry, Gallery, check_name, new_name

DIM = 4


def network():
    card = ExportMetadata(
        fingerprint="abc",
        size=(32, 16),
        interpolation="bilinear",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        flip=False,
        embedding_dim=DIM,
    )
    return StoredNetwork(card.to_json(), weights="best.pt", config="")


def unit(*values):
    vector = np.array(values, dtype=np.float32)
    return vector / np.linalg.norm(vector)


def entry(*values, camera="", source=""):
    return Entry(unit(*values), camera, source)


def random_entries(count, seed=0):
    rows = np.random.default_rng(seed).standard_normal((count, DIM))
    return [entry(*row) for row in rows]


@pytest.fixture
def gallery(tmp_path):
    with Gallery.create(tmp_path / "people.db", network()) as opened:
        yield opened


def test_the_nearest_image_decides_the_order_of_identities(gallery):
    gallery.add("Anna", [entry(1, 0, 0, 0, source="a1"), entry(0, 0, 0, 1, source="a2")])
    gallery.add("Ben", [entry(1, 1, 0, 0, source="b")])
    answer = query(gallery.snapshot(), unit(0, 0, 1, 3), top=5, threshold=0.1)
    assert [(c.name, c.source) for c in answer.candidates] == [("Anna", "a2"), ("Ben", "b")]
    # cos((0, 0, 1, 3), (0, 0, 0, 1)) = 3 / sqrt(10)
    assert answer.candidates[0].distance == pytest.approx(1 - 3 / 10**0.5, abs=1e-6)
    assert answer.known is True
    assert query(gallery.snapshot(), unit(0, 0, 1, 3), top=1, threshold=0.05).known is False
    assert query(gallery.snapshot(), unit(0, 0, 1, 3), top=1, threshold=None).known is None


def test_the_ranking_equals_a_loop_over_all_entries(gallery):
    entries = random_entries(60)
    gallery.add_all({f"p{number}": entries[number::7] for number in range(7)})
    probe = unit(1, 2, 3, 4)
    nearest = {}
    for index, one in enumerate(entries):
        distance = float(1 - one.embedding @ probe)
        nearest[f"p{index % 7}"] = min(distance, nearest.get(f"p{index % 7}", 9.0))
    found = query(gallery.snapshot(), probe, top=4, threshold=None).candidates
    assert [c.name for c in found] == sorted(nearest, key=nearest.__getitem__)[:4]
    assert [c.distance for c in found] == pytest.approx(sorted(nearest.values())[:4], abs=1e-6)


def test_an_empty_gallery_knows_nobody(gallery):
    answer = query(gallery.snapshot(), unit(1, 0, 0, 0), top=3, threshold=0.5)
    assert answer.known is False and answer.candidates == ()
    assert str(answer) == "unknown (the gallery is empty)"


def test_an_image_is_added_once_per_identity(gallery):
    assert gallery.add("Anna", [entry(1, 0, 0, 0), entry(0, 1, 0, 0)]) == 2
    assert gallery.add("Anna", [entry(1, 0, 0, 0), entry(0, 0, 1, 0)]) == 1
    assert gallery.add("Ben", [entry(1, 0, 0, 0)]) == 1
    assert gallery.snapshot().owners.tolist() == [0, 0, 0, 1]


def test_names_that_look_equal_are_equal(gallery):
    gallery.add("Zoe\u0301", [entry(1, 0, 0, 0)])
    gallery.add("Zo\u00e9", [entry(0, 1, 0, 0)])
    assert gallery.snapshot().names == ("Zo\u00e9",)


@pytest.mark.parametrize("name", ["", "  ", "x" * 201, "a\nb", "\x1b[31m"])
def test_a_name_must_be_printable(name):
    with pytest.raises(ValueError, match="1 to 200 printable characters"):
        check_name(name)


def test_identify_grows_the_gallery(gallery):
    assert gallery.identify(entry(1, 0, 0, 0), threshold=0.2) == ("id-000001", True)
    assert gallery.identify(entry(9, 1, 0, 0), threshold=0.2) == ("id-000001", False)
    assert gallery.identify(entry(0, 1, 0, 0), threshold=0.2) == ("id-000002", True)
    assert gallery.snapshot().owners.tolist() == [0, 0, 1]


def test_a_new_name_is_unused():
    assert new_name(["id-000003", "Anna"]) == "id-000004"
    assert new_name([]) == "id-000001"


def test_merge_moves_all_images(gallery):
    gallery.add("Anna", [entry(1, 0, 0, 0)])
    gallery.add("a", [entry(1, 0, 0, 0), entry(0, 1, 0, 0)])
    gallery.add("b", [entry(0, 0, 1, 0)])
    # The first image of "a" is one that Anna has.
    assert gallery.merge("Anna", ["a", "b"]) == 2
    snapshot = gallery.snapshot()
    assert snapshot.names == ("Anna",) and snapshot.owners.tolist() == [0, 0, 0]


def test_merge_with_an_unknown_identity_changes_nothing(gallery):
    gallery.add("Anna", [entry(1, 0, 0, 0)])
    gallery.add("a", [entry(0, 1, 0, 0)])
    with pytest.raises(ValueError, match="there is no identity 'b'"):
        gallery.merge("Anna", ["a", "b"])
    with pytest.raises(ValueError, match="with itself"):
        gallery.merge("Anna", ["Anna"])
    assert gallery.snapshot().names == ("Anna", "a")


def test_forgetting_removes_the_bytes_from_the_file(gallery):
    secret = random_entries(30, seed=1)
    gallery.add("Anna Secret", [Entry(e.embedding, "camera-x", "anna-source.jpg") for e in secret])
    gallery.add("Ben", random_entries(30, seed=2))
    index = gallery.path.with_name("people.db.0123.faiss")
    index.write_bytes(b"an index with embeddings")
    other = gallery.path.with_name("other.db.0123.faiss")
    other.write_bytes(b"of another gallery")
    private = [e.embedding.tobytes() for e in secret]
    private += [b"Anna Secret", b"camera-x", b"anna-source"]
    before = gallery.path.read_bytes()
    assert all(value in before for value in private)
    assert gallery.forget(["Anna Secret"]) == 30
    folder = {path: path.read_bytes() for path in gallery.path.parent.iterdir()}
    assert set(folder) == {gallery.path, other}
    for content in folder.values():
        assert not any(value in content for value in private)
    assert gallery.snapshot().names == ("Ben",) and len(gallery.snapshot().owners) == 30


def test_forgetting_an_unknown_identity_deletes_nothing(gallery):
    gallery.add("Anna", [entry(1, 0, 0, 0)])
    with pytest.raises(ValueError, match="there is no identity 'Ben'"):
        gallery.forget(["Anna", "Ben"])
    assert gallery.snapshot().names == ("Anna",)


def test_a_second_connection_sees_every_change(gallery):
    with Gallery(gallery.path) as other:
        gallery.add("Anna", [entry(1, 0, 0, 0)])
        assert other.snapshot().names == ("Anna",)
        other.add("Ben", [entry(0, 1, 0, 0)])
        assert gallery.snapshot().names == ("Anna", "Ben")
        other.forget(["Ben"])
        # The new identity may get the number of the deleted one.
        other.add("Cleo", [entry(0, 0, 1, 0)])
        snapshot = gallery.snapshot()
        assert snapshot.names == ("Anna", "Cleo")
        assert np.array_equal(snapshot.embeddings[1], unit(0, 0, 1, 0))
        assert gallery.snapshot() is snapshot


def test_threads_lose_nothing(gallery):
    def add(number):
        for index, one in enumerate(random_entries(10, seed=number)):
            gallery.add(f"{number}-{index % 3}", [one])

    threads = [threading.Thread(target=add, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    snapshot = gallery.snapshot()
    assert len(snapshot.owners) == 40 and len(snapshot.names) == 12


WRITER = """
import sys
import numpy as np
from ember_reid.tools.gallery.store import Entry, Gallery
with Gallery(sys.argv[1]) as gallery:
    for row in np.random.default_rng(0).standard_normal((1000, 4)):
        gallery.add("killed", [Entry((row / np.linalg.norm(row)).astype(np.float32))])
        print("added", flush=True)
"""


def test_two_processes_write_and_a_kill_loses_nothing_that_was_acknowledged(gallery):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, gallery.path],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    acknowledged = 0
    for one in random_entries(8, seed=1):
        acknowledged += writer.stdout.readline() == "added\n"
        gallery.add("own", [one])
    writer.send_signal(signal.SIGKILL)
    acknowledged += writer.stdout.read().count("added\n")
    writer.wait()
    snapshot = gallery.snapshot()
    counts = {
        name: int((snapshot.owners == position).sum())
        for position, name in enumerate(snapshot.names)
    }
    assert counts["own"] == 8
    # The killed process may have added one more image than it could report.
    assert acknowledged >= 8 and counts["killed"] - acknowledged in (0, 1)


def test_a_full_disk_changes_nothing(gallery):
    gallery.add("Anna", [entry(1, 0, 0, 0)])
    pages = gallery._connection.execute("PRAGMA page_count").fetchone()[0]
    gallery._connection.execute(f"PRAGMA max_page_count = {pages + 1}")
    with pytest.raises(OSError, match="full; nothing was changed"):
        gallery.add("Ben", random_entries(500))
    assert gallery.snapshot().names == ("Anna",) and len(gallery.snapshot().owners) == 1
    gallery._connection.execute("PRAGMA max_page_count = 100000")
    assert gallery.add("Ben", random_entries(500)) == 500


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "not a gallery"), (b"no database" * 100, "not a gallery, or it is damaged")],
)
def test_another_file_is_refused(tmp_path, content, message):
    path = tmp_path / "x.db"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        Gallery(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("has_links", [True, False])
def test_an_existing_gallery_is_not_replaced(tmp_path, monkeypatch, has_links):
    def refuse(*_):
        raise PermissionError("links are not supported")

    if not has_links:
        monkeypatch.setattr(os, "link", refuse)
    with Gallery.create(tmp_path / "a.db", network()) as created:
        created.add("Anna", [entry(1, 0, 0, 0)])
    with pytest.raises(FileExistsError):
        Gallery.create(tmp_path / "a.db", network())
    with Gallery(tmp_path / "a.db") as opened:
        assert opened.snapshot().names == ("Anna",)
    assert [path.name for path in tmp_path.iterdir()] == ["a.db"]


def test_a_missing_gallery_is_not_created(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no gallery"):
        Gallery(tmp_path / "x.db")
    assert not list(tmp_path.iterdir())


def test_a_gallery_with_a_trigger_is_refused(gallery):
    with sqlite3.connect(gallery.path) as connection:
        connection.execute(
            "CREATE TRIGGER t AFTER INSERT ON entries BEGIN DELETE FROM identities; END"
        )
    connection.close()
    with pytest.raises(ValueError, match="an SQLite file, but not a gallery"):
        Gallery(gallery.path)


def test_damaged_embeddings_are_found(gallery):
    gallery.add("Anna", [entry(1, 0, 0, 0)])
    with sqlite3.connect(gallery.path) as connection:
        connection.execute("UPDATE entries SET embedding = ?", (np.ones(DIM, "<f4").tobytes(),))
    connection.close()
    with Gallery(gallery.path) as other, pytest.raises(ValueError, match="damaged.*unit length"):
        other.snapshot()


def test_embeddings_of_another_length_or_dimension_are_refused(gallery):
    with pytest.raises(ValueError, match="must be float32 of shape"):
        gallery.add("Anna", [Entry(np.ones(3, np.float32) / 3**0.5)])
    with pytest.raises(ValueError, match="not finite"):
        gallery.add("Anna", [Entry(np.full(DIM, np.nan, np.float32))])
    assert gallery.snapshot().names == ()


@pytest.mark.skipif(find_spec("faiss") is None, reason="faiss is optional")
def test_the_index_finds_what_comparing_all_finds(gallery):
    entries = random_entries(400)
    gallery.add_all({f"p{number}": entries[number::20] for number in range(20)})
    probes = np.stack([e.embedding for e in random_entries(5, seed=3)])
    exact = list(search_all(gallery, probes, 1, 0.2))
    found = list(search_index(gallery, probes, 1, 0.2))
    assert [a.known for a in found] == [a.known for a in exact]
    assert [a.candidates[0].name for a in found] == [a.candidates[0].name for a in exact]
    assert list(gallery.path.parent.glob("people.db.*.faiss"))
    gallery.forget(["p3"])
    assert not list(gallery.path.parent.glob("*.faiss"))
