"""Tox21: which of 12 toxicity assays a molecule is active in, from its SMILES string.

The split of the Tox21 Data Challenge 2014 with the labels and folds of DeepTox (Mayr et al. 2016).
The challenge's metric is the mean ROC-AUC over the assays.

- Tokens: a bracket atom, Cl, Br, a two-digit ring closure (%10), @@, or a single character. The
  vocabulary is that of the molecules trained on; whatever they lack is `UNKNOWN`. A few strings
  elsewhere are written in the aromatic (lower-case) form, which training lacks.
- Rows are samples, not compounds: a compound can have several, sometimes with different labels.
  All are kept, as in the challenge; 7 test rows are compounds that training has as well.
- Two test rows lack a hydrogen and are kept as published. Strings are not parsed any further.
"""

import csv
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from elenas_jax.tasks.data_files import Source, decode, read_file
from elenas_jax.tasks.records import DataError, Dataset, Split

FILE = "tox21/tox21_challenge.csv"
PADDING, UNKNOWN = 0, 1  # tokens; those of the vocabulary follow
VALIDATIONS = ("leaderboard", "fold")
VALIDATION_FOLD = "4"
_COLUMNS = ("inchikey", "set", "cvfold", "smiles")
_TEXT_COLUMNS = ("id", *_COLUMNS, "smiles_source", "inchikey_match")
_TOKEN = re.compile(r"\[[^\]]*\]|Br|Cl|%\d\d|@@|.")

SOURCE = Source(
    urls=(),
    sha256={},
    by_hand=(
        "expected is a comma-separated table, gzipped or plain, with the columns inchikey, set (training, "
        "leaderboard or test), cvfold, smiles and one of 1, 0 or nothing for each assay; it has no "
        "single download: split, folds and labels are tox21_compoundData.csv of "
        "http://bioinf.jku.at/research/DeepTox/tox21.html, SMILES those of "
        "https://tripod.nih.gov/tox21/challenge/, joined by sample id."
    ),
)

Row = dict[str, str]


def tokenise(smiles: str) -> list[str]:
    """Splits a SMILES string; joined, the tokens are the string again."""
    return _TOKEN.findall(smiles)


def load_tox21(
    data_dir: str | Path | None = None, *, length: int = 128, validation: str = "leaderboard"
) -> Dataset:
    """Loads the challenge's training set as `[N, length]` int32 tokens with `[N, 12]` labels.

    Args:
      data_dir: see `data_files.data_folder`.
      length: time steps; a longer string keeps its first `length` tokens.
      validation: "leaderboard" validates on the challenge's leaderboard set (296 samples); "fold"
        on fold 4 of the training set, with every other sample of a compound that is in it, so that
        no InChIKey is on both sides.
    """
    if isinstance(length, bool) or not isinstance(length, int) or length < 1:
        raise DataError(f"tox21: length is {length!r}; it must be a whole number of at least 1.")
    if validation not in VALIDATIONS:
        raise DataError(f"tox21: validation is {validation!r}; it must be {' or '.join(VALIDATIONS)}.")
    sets, assays = _read_rows(data_dir)
    if validation == "leaderboard":
        train_rows, valid_rows = sets["training"], sets["leaderboard"]
        held_out = "the leaderboard set"
    else:
        keys = {row["inchikey"] for row in sets["training"] if row["cvfold"] == VALIDATION_FOLD}
        train_rows = [row for row in sets["training"] if row["inchikey"] not in keys]
        valid_rows = [row for row in sets["training"] if row["inchikey"] in keys]
        held_out = f"fold {VALIDATION_FOLD} of the training set"
    for name, rows in (("training", train_rows), ("validation", valid_rows), ("test", sets["test"])):
        if not rows:
            raise DataError(f"{FILE}: there are no {name} rows.")
    known = sorted({token for row in train_rows for token in tokenise(row["smiles"])})
    vocabulary = {token: UNKNOWN + 1 + number for number, token in enumerate(known)}
    cut = sum(len(tokenise(row["smiles"])) > length for row in (*train_rows, *valid_rows))
    return Dataset(
        name="tox21",
        is_tokens=True,
        in_features=UNKNOWN + 1 + len(vocabulary),
        out_features=len(assays),
        time_steps=length,
        loss="binary",
        metric="roc_auc",
        train=_encode(train_rows, vocabulary, assays, length),
        valid=_encode(valid_rows, vocabulary, assays, length),
        load_test=lambda: _encode(sets["test"], vocabulary, assays, length),
        labels=assays,
        note=(
            f"Tox21, {len(assays)} assays, challenge split, validation on {held_out}: {len(train_rows):,} "
            f"train and {len(valid_rows):,} validation samples, SMILES of {length} tokens ({cut} cut)"
        ),
    )


def _read_rows(data_dir: str | Path | None) -> tuple[dict[str, list[Row]], tuple[str, ...]]:
    """Returns the rows of each set and the names of the assays."""
    text = decode(read_file(data_dir, FILE, SOURCE), FILE)
    reader = csv.DictReader(text.splitlines())
    columns = tuple(reader.fieldnames or ())
    missing = [column for column in _COLUMNS if column not in columns]
    assays = tuple(column for column in columns if column not in _TEXT_COLUMNS)
    if missing or not assays:
        raise DataError(f"{FILE}: the header lacks {', '.join(missing) or 'columns of assays'}.")
    sets: dict[str, list[Row]] = {"training": [], "leaderboard": [], "test": []}
    for row in reader:
        if None in row or None in row.values():
            raise DataError(f"{FILE}, line {reader.line_num}: it does not have {len(columns)} cells.")
        if row["set"] not in sets:
            raise DataError(
                f"{FILE}, line {reader.line_num}: set is {row['set']!r}; it must be {', '.join(sets)}."
            )
        if not row["smiles"]:
            raise DataError(f"{FILE}, line {reader.line_num}: smiles is empty.")
        for assay in assays:
            if row[assay] not in ("", "0", "1"):
                raise DataError(
                    f"{FILE}, line {reader.line_num}: {assay} is {row[assay]!r}; it must be 1, 0 or empty."
                )
        sets[row["set"]].append(row)
    return sets, assays


def _encode(rows: Sequence[Row], vocabulary: dict[str, int], assays: tuple[str, ...], length: int) -> Split:
    inputs = np.full((len(rows), length), PADDING, np.int32)
    for number, row in enumerate(rows):
        tokens = [vocabulary.get(token, UNKNOWN) for token in tokenise(row["smiles"])[:length]]
        inputs[number, length - len(tokens) :] = tokens
    targets = [[float(row[assay] or "nan") for assay in assays] for row in rows]
    return Split(inputs, np.array(targets, np.float32))
