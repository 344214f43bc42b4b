import numpy as np
import pytest
import torch

from autopeft.objectives import hypervolume
from autopeft.samplers._gaussian_process import Data, fit
from autopeft.samplers._priors import SparseAxes
from benchmarks.replay.autopeft_rival import AutoPeftRival, Settings, _gains, _to_normal, _unit, expected_improvement
from benchmarks.replay.simulate import replay
from tests.benchmarks.tables import SPACE, world
from tests.samplers.botorch_oracle import to_botorch

WORLD = world(40)


def test_gains_are_differences_of_hypervolumes() -> None:
    """Oracle: `autopeft.objectives.hypervolume` with and without each candidate."""
    rng = np.random.default_rng(0)
    for n in (0, 1, 7):
        baseline, candidates = rng.normal(size=(n, 2)), rng.normal(size=(20, 2))
        reference = np.array([-0.5, -0.7])
        before = hypervolume(baseline, reference) if n else 0.0
        wanted = [hypervolume(np.vstack([baseline, row]), reference) - before for row in candidates]
        assert _gains(baseline, candidates, reference) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.filterwarnings("ignore:qNoisyExpectedHypervolumeImprovement has known numerical issues")
def test_the_acquisition_function_is_botorchs() -> None:
    """Oracle: qNoisyExpectedHypervolumeImprovement on the same two processes, by its own samples."""
    # Imported after our own modules, which silence what BoTorch warns about when it is imported.
    from botorch.acquisition.multi_objective.monte_carlo import qNoisyExpectedHypervolumeImprovement
    from botorch.models import ModelListGP
    from botorch.sampling import SobolQMCNormalSampler

    rng = np.random.default_rng(1)
    x, candidates = rng.random((8, 3)), rng.random((12, 3))
    values = np.column_stack([np.sin(3 * x[:, 0]), -x[:, 1] + 0.2 * x[:, 2]])
    values = (values - values.mean(0)) / values.std(0)
    models = [fit(Data.merge(x, column), SparseAxes()) for column in values.T]
    reference = values.min(axis=0) - 0.5
    draws = [
        expected_improvement(
            models, torch.as_tensor(x), torch.as_tensor(candidates), reference, np.random.default_rng(k)
        )
        for k in range(40)
    ]
    ours = np.mean(draws, axis=0)
    theirs = qNoisyExpectedHypervolumeImprovement(
        model=ModelListGP(*(to_botorch(model, n_more=0) for model in models)),
        ref_point=reference.tolist(),
        X_baseline=torch.as_tensor(x),
        sampler=SobolQMCNormalSampler(torch.Size([4096]), seed=0),
        prune_baseline=False,
    )
    with torch.no_grad():
        wanted = theirs(torch.as_tensor(candidates).unsqueeze(1)).numpy()
    assert ours == pytest.approx(wanted, rel=0.08, abs=0.01)
    assert np.corrcoef(ours, wanted)[0, 1] > 0.999


def test_ranks_become_normal_quantiles() -> None:
    """By hand: three values have mid-ranks 1/6, 1/2, 5/6; beyond all of them stand the clipped quantiles."""
    observed = np.array([5.0, 1.0, 3.0])
    assert _to_normal(observed, observed) == pytest.approx([0.96742, -0.96742, 0.0], abs=1e-4)
    assert _to_normal(observed, np.array([9.0, 0.0])) == pytest.approx([3.719, -3.719], abs=1e-3)


def test_points_lie_on_the_unit_cube() -> None:
    codes = np.array([_unit(row.point.params, SPACE.parameters) for row in WORLD.rows])
    assert codes.min() >= 0
    assert codes.max() <= 1
    first = WORLD.rows[0].point.params
    position = [item.name for item in SPACE.parameters].index("rate")
    wanted = np.log(first["rate"] / 0.0005) / np.log(0.02 / 0.0005)
    assert codes[0][position] == pytest.approx(wanted)


@pytest.mark.parametrize(
    "settings", [Settings(n_initial=6), Settings(n_initial=6, is_published=False, has_design=True)]
)
@pytest.mark.parametrize("workers", [1, 3])
def test_it_searches_without_repeats_and_can_be_repeated(settings: Settings, workers: int) -> None:
    found = [replay(WORLD, AutoPeftRival(WORLD, settings, seed=1), n_trials=10, n_workers=workers) for _ in range(2)]
    assert found[0].order == found[1].order
    assert len(set(found[0].order)) == 10
    assert found[0].sources == {"initial": 6, "model": 4}


def test_beyond_the_fixed_reference_point_every_row_looks_alike() -> None:
    """The published reference point asks for a quality of 0.7: where no row has it, choices are random."""
    assert np.nanmax(WORLD.truth) < 0.7
    orders = {
        replay(WORLD, AutoPeftRival(WORLD, Settings(n_initial=6), seed=seed), n_trials=8, table_seed=0).order[6:]
        for seed in range(4)
    }
    assert len(orders) == 4
