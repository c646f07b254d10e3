"""Penn Treebank: word-level language modelling of Wall Street Journal text.

The preprocessing of Mikolov et al. (2010): lower case, numbers as `N`, rare words as `<unk>`, no
punctuation, 10,000 words; the standard split. One sentence a line; `<eos>` ends each. The text
derives from the LDC's Treebank-3 (LDC99T42): for research, not to be passed on.
"""

from collections import Counter
from pathlib import Path

import numpy as np

from elenas_jax.tasks.data_files import Source, decode, read_file
from elenas_jax.tasks.records import DataError, Dataset

SOURCE = Source(
    urls=("http://www.fit.vutbr.cz/~imikolov/rnnlm/simple-examples.tgz",),
    sha256={
        "ptb/ptb.train.txt": "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
        "ptb/ptb.valid.txt": "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
        "ptb/ptb.test.txt": "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
    },
    by_hand="get simple-examples.tgz of Mikolov's RNNLM toolkit and put data/ptb.*.txt of it there.",
    archive_folder="./simple-examples/data",
)


def load_ptb(data_dir: str | Path | None = None, *, level: str = "word") -> Dataset:
    """Loads the text as `[L]` int32 words, of train and validation; 929,589 and 73,760 of them.

    Words are numbered by falling frequency in train, equally frequent ones in the order of their
    letters. `labels` is empty, so that no word of the text gets into a run folder.

    Args:
      data_dir: see `data_files.data_folder`.
      level: "word", the only one.
    """
    if level != "word":
        raise DataError(f"ptb: level is {level!r}; it must be 'word'.")
    words = _read_words(data_dir, "train")
    counts = Counter(words)
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    index = {word: number for number, word in enumerate(ranked)}
    train = _encode(words, index, "train")
    valid = _encode(_read_words(data_dir, "valid"), index, "valid")
    return Dataset(
        name="ptb",
        is_tokens=True,
        in_features=len(ranked),
        out_features=len(ranked),
        time_steps=None,
        loss="language",
        metric="perplexity",
        train=train,
        valid=valid,
        load_test=lambda: _encode(_read_words(data_dir, "test"), index, "test"),
        labels=(),
        note=(
            f"Penn Treebank, word level, standard split: {len(train):,} train and {len(valid):,} validation "
            f"words, vocabulary {len(ranked):,}"
        ),
    )


def _read_words(data_dir: str | Path | None, split: str) -> list[str]:
    name = f"ptb/ptb.{split}.txt"
    text = decode(read_file(data_dir, name, SOURCE), name)
    if not text.strip():
        raise DataError(f"{name}: there is no text in it.")
    return [*text.removesuffix("\n").replace("\n", " <eos> ").split(), "<eos>"]


def _encode(words: list[str], index: dict[str, int], split: str) -> np.ndarray:
    try:
        return np.fromiter(map(index.__getitem__, words), np.int32, len(words))
    except KeyError as error:
        raise DataError(f"ptb/ptb.{split}.txt: the training text lacks its word {error}.") from error
