import numpy as np

from autopeft.rewards._examples import subset, text_keys
from tests.training.toys import toy_split


def test_subset_takes_rows_in_order():
    split = toy_split(10, seed=0, pairs=True)
    taken = subset(split, np.array([7, 2]))
    assert taken.texts == (split.texts[7], split.texts[2])
    assert taken.pairs == (split.pairs[7], split.pairs[2])
    assert taken.targets.tolist() == [split.targets[7], split.targets[2]]
    assert subset(toy_split(3, seed=0), np.array([0])).pairs is None


def test_keys_fold_case_and_white_space_but_not_the_border_between_texts():
    split = toy_split(4, seed=0, pairs=True)
    same = [("A  b", "c"), ("a B ", "C"), ("a", "b c"), ("a b c", "")]
    made = type(split)(texts=tuple(a for a, _ in same), pairs=tuple(b for _, b in same), targets=split.targets.copy())
    keys = text_keys(made)
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3
