from autopeft.samplers._botorch import logei, without_compiling


def test_nothing_is_compiled_inside_and_the_switch_is_put_back() -> None:
    before = logei._load_attempted
    with without_compiling():
        assert logei._load_attempted is True
    assert logei._load_attempted is before
