import pytest

from autopeft import exceptions
from autopeft.exceptions import AutoPeftError, SearchSpaceError, UnknownNameError


def test_every_error_is_an_autopeft_error_with_a_documented_exit_code() -> None:
    classes = [item for item in vars(exceptions).values() if isinstance(item, type) and issubclass(item, Exception)]
    assert len(classes) > 10
    for item in classes:
        assert issubclass(item, AutoPeftError)
        assert item.exit_code in (1, 2, 3, 4, 5)
        assert item.__name__ in (exceptions.__doc__ or "")


def test_unknown_name_suggests_the_nearest_and_reads_as_a_sentence() -> None:
    error = UnknownNameError("task", "glue/sst-2", ["glue/sst2", "glue/cola", "stdlib/topics"], "Or give a path.")
    assert str(error).startswith("unknown task 'glue/sst-2'. Did you mean glue/sst2")
    assert str(error).endswith("Or give a path.")
    assert isinstance(error, KeyError)
    assert isinstance(error, ValueError)


def test_search_space_error_lists_every_problem() -> None:
    with pytest.raises(SearchSpaceError, match="2 problem") as caught:
        raise SearchSpaceError("x.yaml", ["name: missing", "budget: unknown"])
    assert "  - name: missing\n  - budget: unknown" in str(caught.value)
