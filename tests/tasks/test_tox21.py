"""Tox21: tokens, splits, labels that were not measured; the counts of the real file."""

import re

import numpy as np
import pytest

from elenas_jax.tasks.records import DataError
from elenas_jax.tasks.tox21 import FILE, UNKNOWN, load_tox21, tokenise

HEADER = "id,inchikey,set,cvfold,smiles,smiles_source,inchikey_match,A,B"
ROWS = [
    "1,K1,training,0,CCl,challenge,full,1,",
    "2,K2,training,4,CCN,challenge,full,0,1",
    "3,K1,training,1,C[NH3+],challenge,full,1,0",
    "4,K2,training,,NCC,challenge,full,,1",  # the same compound as 2, of no fold
    "5,K3,leaderboard,5,CBrC,challenge,full,0,",
    "6,K4,test,,O,challenge,full,,1",
]


def write(folder, *rows, header=HEADER):
    path = folder / FILE
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join([header, *rows]) + "\n")
    return folder


@pytest.mark.parametrize(
    "smiles, tokens",
    [
        ("CC(=O)Cl", ["C", "C", "(", "=", "O", ")", "Cl"]),
        ("C[C@@H](N)Br", ["C", "[C@@H]", "(", "N", ")", "Br"]),
        ("C%10CC%10", ["C", "%10", "C", "C", "%10"]),
        ("c1cc[nH]c1.[Na+]", ["c", "1", "c", "c", "[nH]", "c", "1", ".", "[Na+]"]),
        ("F/C=C\\F", ["F", "/", "C", "=", "C", "\\", "F"]),
        ("C@@C@C", ["C", "@@", "C", "@", "C"]),
        ("BCNI", ["B", "C", "N", "I"]),
    ],
)
def test_tokens(smiles, tokens):
    assert tokenise(smiles) == tokens


def test_rows_become_tokens_and_labels(tmp_path):
    dataset = load_tox21(write(tmp_path, *ROWS), length=3)
    # Known are C, Cl, N and [NH3+], numbered from 2.
    np.testing.assert_array_equal(dataset.train.inputs, [[0, 2, 3], [2, 2, 4], [0, 2, 5], [4, 2, 2]])
    np.testing.assert_array_equal(dataset.train.targets, [[1, np.nan], [0, 1], [1, 0], [np.nan, 1]])
    np.testing.assert_array_equal(dataset.valid.inputs, [[2, UNKNOWN, 2]])
    assert dataset.in_features == 6 and dataset.out_features == 2 and dataset.time_steps == 3
    assert dataset.labels == ("A", "B") and "(0 cut)" in dataset.note
    test = dataset.load_test()
    np.testing.assert_array_equal(test.inputs, [[0, 0, UNKNOWN]])
    np.testing.assert_array_equal(test.targets, [[np.nan, 1]])


def test_long_strings_keep_their_first_tokens(tmp_path):
    dataset = load_tox21(write(tmp_path, *ROWS), length=2)
    np.testing.assert_array_equal(dataset.train.inputs[1:], [[2, 2], [2, 5], [4, 2]])
    assert "(3 cut)" in dataset.note  # CCN, NCC and CBrC


def test_a_fold_holds_out_whole_compounds(tmp_path):
    dataset = load_tox21(write(tmp_path, *ROWS), length=3, validation="fold")
    np.testing.assert_array_equal(dataset.train.targets, [[1, np.nan], [1, 0]])
    np.testing.assert_array_equal(dataset.valid.targets, [[0, 1], [np.nan, 1]])
    # N is in the held-out compound only.
    np.testing.assert_array_equal(dataset.valid.inputs, [[2, 2, UNKNOWN], [UNKNOWN, 2, 2]])


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"length": 0}, "tox21: length is 0; it must be a whole number of at least 1."),
        ({"length": 1.5}, "tox21: length is 1.5; it must be a whole number of at least 1."),
        ({"validation": "random"}, "tox21: validation is 'random'; it must be leaderboard or fold."),
    ],
)
def test_settings_are_checked(tmp_path, settings, message):
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        load_tox21(write(tmp_path, *ROWS), **settings)


@pytest.mark.parametrize(
    "row, message",
    [
        ("7,K,train,,C,x,x,1,0", "line 8: set is 'train'; it must be training, leaderboard, test."),
        ("7,K,test,,C,x,x,1", "line 8: it does not have 9 cells."),
        ("7,K,test,,C,x,x,1,0,0", "line 8: it does not have 9 cells."),
        ("7,K,test,,C,x,x,1,2", "line 8: B is '2'; it must be 1, 0 or empty."),
        ("7,K,test,,,x,x,1,1", "line 8: smiles is empty."),
    ],
)
def test_wrong_rows_are_named(tmp_path, row, message):
    with pytest.raises(DataError, match=re.escape(f"{FILE}, {message}")):
        load_tox21(write(tmp_path, *ROWS, row))


def test_wrong_files_are_one_line(tmp_path):
    with pytest.raises(DataError, match="the header lacks set, cvfold"):
        load_tox21(write(tmp_path, header="inchikey,smiles,A"))
    with pytest.raises(DataError, match="the header lacks columns of assays"):
        load_tox21(write(tmp_path, header="inchikey,set,cvfold,smiles"))
    with pytest.raises(DataError, match="there are no test rows"):
        load_tox21(write(tmp_path, *ROWS[:-1]))


def test_a_missing_file_says_what_is_expected_and_where_it_comes_from(tmp_path):
    with pytest.raises(DataError) as error:
        load_tox21(tmp_path)
    message = str(error.value)
    assert f"{FILE}.gz: no such file" in message and "\n" not in message
    assert "inchikey, set" in message and "bioinf.jku.at" in message and "tripod.nih.gov" in message


def test_counts_of_the_real_file(data_dir):
    dataset = load_tox21(data_dir)
    assert [len(dataset.train.inputs), len(dataset.valid.inputs)] == [11_764, 296]
    test = dataset.load_test()
    assert len(test.inputs) == 647 and len(dataset.labels) == 12

    def counts(split, assay):
        column = split.targets[:, dataset.labels.index(assay)]
        return [int(np.sum(column == 1)), int(np.sum(column == 0)), int(np.isnan(column).sum())]

    assert counts(dataset.train, "NR-AhR") == [950, 7219, 3595]
    assert counts(dataset.valid, "SR-ARE") == [48, 186, 62]
    assert counts(test, "SR-p53") == [41, 575, 31]
    assert dataset.in_features == dataset.train.inputs.max() + 1 == 128  # 126, padding and unknown
    assert not (dataset.train.inputs == UNKNOWN).any() and (test.inputs == UNKNOWN).any()


def test_the_fold_of_the_real_file(data_dir):
    dataset = load_tox21(data_dir, validation="fold")
    # 1,510 of fold 4 and 10 more of the same compounds.
    assert [len(dataset.train.inputs), len(dataset.valid.inputs)] == [10_244, 1_520]
