"""Penn Treebank: words, numbering, mistakes; the counts of the real files."""

import numpy as np
import pytest

from elenas_jax.tasks.penn_treebank import SOURCE, load_ptb
from elenas_jax.tasks.records import DataError

TEXT = {"train": " b b c \n a c b \n", "valid": " c a \n", "test": " b \n\n"}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "ptb").mkdir()
    for split, text in TEXT.items():
        (tmp_path / f"ptb/ptb.{split}.txt").write_text(text)
    return tmp_path


def test_words_are_numbered_by_frequency_then_spelling(folder):
    dataset = load_ptb(folder)
    # b is there three times, <eos> and c twice, a once.
    np.testing.assert_array_equal(dataset.train, [0, 0, 2, 1, 3, 2, 0, 1])
    np.testing.assert_array_equal(dataset.valid, [2, 3, 1])
    np.testing.assert_array_equal(dataset.load_test(), [0, 1, 1])
    assert dataset.train.dtype == dataset.valid.dtype == np.int32
    assert dataset.in_features == dataset.out_features == 4
    assert dataset.time_steps is None and dataset.labels == () and "8 train" in dataset.note


def test_the_test_file_is_read_by_load_test_only(folder):
    (folder / "ptb/ptb.test.txt").write_bytes(b"\x1f\x8b cut off")
    dataset = load_ptb(folder)
    with pytest.raises(DataError, match=r"ptb\.test\.txt: cut off or damaged"):
        dataset.load_test()


def test_mistakes_are_one_line(folder):
    with pytest.raises(DataError, match=r"^ptb: level is 'char'; it must be 'word'\.$"):
        load_ptb(folder, level="char")
    (folder / "ptb/ptb.valid.txt").write_text("a new\n")
    with pytest.raises(DataError, match=r"ptb\.valid\.txt: the training text lacks its word 'new'"):
        load_ptb(folder)
    (folder / "ptb/ptb.train.txt").write_text("\n")
    with pytest.raises(DataError, match=r"ptb\.train\.txt: there is no text"):
        load_ptb(folder)


def test_every_file_has_a_checksum():
    assert set(SOURCE.sha256) == {f"ptb/ptb.{split}.txt" for split in TEXT}


def test_counts_of_the_real_files(data_dir):
    dataset = load_ptb(data_dir)
    assert len(dataset.train) == 929_589 and len(dataset.valid) == 73_760
    assert len(dataset.load_test()) == 82_430
    assert dataset.out_features == 10_000 == dataset.train.max() + 1
    counts = np.bincount(dataset.train)
    assert (np.diff(counts) <= 0).all() and (counts == 42_068).any()  # <eos>, once a line
