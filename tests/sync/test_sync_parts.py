"""The parts that synchronization algorithms are composed of, one by one."""

import numpy as np
import pytest

from geojax.config import SyncConfig
from geojax.errors import ConfigError
from geojax.sync.fsa import fsa
from geojax.sync.local_steps import LocalStepsConfig, local_steps
from geojax.sync.parts import barrier, delta_offer, fixed_steps, gradient_offer, weighted_mean
from geojax.sync.registry import SYNCS, build_sync
from testbed.simulated.loop import run_virtual


class CountingTrainer:
    """Two parameters and one element of state; every step adds 1 to all of them."""

    def __init__(self):
        self.values = np.array([10.0, 20.0, 30.0], np.float32)
        self.steps = self.gradients = 0

    def gradient(self):
        self.gradients += 1
        return np.array([0.5, -0.5, 31.0], np.float32)

    def step(self):
        self.steps += 1
        self.values += 1

    def vector(self):
        return self.values.copy()


def collect(offer, steps):
    trainer, paced = CountingTrainer(), []
    base = trainer.vector()

    async def step(work):
        paced.append(work.__name__)
        return work()

    asked = []

    async def more(taken):
        asked.append(taken)
        return taken < steps

    offered = run_virtual(offer.collect(trainer, base, 2, more, step))
    assert asked == [*range(1, steps + 1)]
    assert base.tolist() == [10.0, 20.0, 30.0]
    return trainer, paced, offered


def test_a_gradient_offer_is_one_gradient_with_the_state_as_it_is():
    trainer, paced, offered = collect(gradient_offer(), 1)
    assert offered.tolist() == [0.5, -0.5, 31.0]
    assert (trainer.gradients, trainer.steps, paced) == (1, 0, ["gradient"])


def test_a_gradient_is_of_exactly_one_step():
    with pytest.raises(ValueError, match="after 1 step"):
        collect(gradient_offer(), 2)


@pytest.mark.parametrize("steps", [1, 5])
def test_a_delta_offer_is_how_far_the_steps_moved_with_the_state_as_a_value(steps):
    trainer, paced, offered = collect(delta_offer(), steps)
    assert offered.tolist() == [steps, steps, 30.0 + steps]
    assert (trainer.steps, paced) == (steps, ["step"] * steps)
    assert trainer.values.tolist() == [10.0 + steps, 20.0 + steps, 30.0 + steps]


def test_what_the_outer_optimizer_takes_is_a_gradient():
    merged = np.array([1.0, -2.0], np.float32)
    assert gradient_offer().pseudo_gradient(merged).tolist() == [1.0, -2.0]
    assert delta_offer().pseudo_gradient(merged).tolist() == [-1.0, 2.0]
    assert (gradient_offer().inner, delta_offer().inner) == (False, True)


def test_fixed_steps_are_the_same_in_every_round():
    assert [fixed_steps(4).steps(number) for number in (0, 1, 1000)] == [4, 4, 4]


def test_the_barrier_needs_the_tree_exchange():
    assert barrier().exchange == "tree"


def test_the_weighted_mean_divides_by_the_weight_in_float32():
    total = np.array([3.0, 1.0], np.float32)
    mean = weighted_mean().merge(total, 3.0)
    assert mean.dtype == np.float32
    assert mean.tolist() == [1.0, float(np.float32(1) / np.float32(3))]
    assert total.tolist() == [3.0, 1.0]


def test_what_the_algorithms_are_composed_of():
    one, two = fsa(), local_steps(steps=7)
    names = [
        (a.name, a.offer.name, a.local_steps.steps(0), a.merge.name, a.outer_default)
        for a in (one, two)
    ]
    assert names == [
        ("fsa", "gradient", 1, "weighted_mean", "optimizer"),
        ("local_steps", "delta", 7, "weighted_mean", "average"),
    ]


# ---- the registry


def test_a_wrong_name_is_refused_with_the_nearest_one():
    with pytest.raises(ConfigError, match=r"sync\.name = 'fsaa': did you mean 'fsa'"):
        build_sync(SyncConfig(name="fsaa"))


@pytest.mark.parametrize("steps", [0, -1])
def test_less_than_one_local_step_is_refused(steps):
    with pytest.raises(ConfigError, match=rf"sync\.local_steps = {steps}: .*at least 1"):
        build_sync(LocalStepsConfig(local_steps=steps))


def test_fsa_takes_no_more_than_one_step_and_says_what_does():
    with pytest.raises(ConfigError, match=r"read by sync=.*local_steps") as caught:
        build_sync(SYNCS.settings("fsa", local_steps=4))
    assert (caught.value.key, caught.value.value) == ("sync.local_steps", 4)
