import pytest

from autopeft.study import Fidelity
from autopeft.training import Job
from tests.training.toys import lora

FIDELITY = Fidelity(train_examples=10, epochs=1)


def test_a_job_scores_the_search_split_unless_told_otherwise() -> None:
    assert Job(configuration=lora([0]), seed=0, fidelity=FIDELITY).splits == ("search",)


@pytest.mark.parametrize("changes", [{"seed": -1}, {"splits": ()}, {"splits": ("train",)}])
def test_impossible_jobs_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"must"):
        Job(**{"configuration": lora([0]), "seed": 0, "fidelity": FIDELITY, **changes})  # type: ignore[arg-type]
