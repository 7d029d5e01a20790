"""Finding the clone's folders and its notebooks."""

from __future__ import annotations

import pytest

from labkit.cli import UsageError, places


@pytest.fixture
def folder(tmp_path):
    for name in ("00_start", "03_precision", "11_parallel"):
        (tmp_path / f"{name}.ipynb").touch()
    (tmp_path / "notes.ipynb").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["03"], ["03_precision"]),
        (["3"], ["03_precision"]),
        (["03_precision"], ["03_precision"]),
        (["11", "0"], ["11_parallel", "00_start"]),
        (["all"], ["00_start", "03_precision", "11_parallel"]),
        (["03", "all", "3"], ["03_precision", "00_start", "11_parallel"]),
    ],
)
def test_words_name_notebooks_once_each(folder, words, names):
    assert [path.stem for path in places.find_notebooks(words, folder)] == names


def test_a_path_names_any_notebook(folder):
    path = folder / "notes.ipynb"
    assert places.find_notebooks([str(path)], folder) == [path]


@pytest.mark.parametrize("word", ["04", "start", "missing.ipynb", "", "-3", "٣٣"])
def test_an_unknown_word_lists_what_there_is(folder, word):
    with pytest.raises(UsageError, match=r"there are: 00_start, 03_precision, 11_parallel"):
        places.find_notebooks([word], folder)


def test_all_of_nothing_is_an_error(tmp_path):
    with pytest.raises(UsageError, match="there are: none"):
        places.find_notebooks(["all"], tmp_path)
