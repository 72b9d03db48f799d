"""Special cases of federated algorithms that are others, and mistakes that others made."""

import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from simulated_runs import simulated
from small_runs import compared, config, distance

from geojax.center.outer import build_outer_optimizer
from geojax.center.server_optimizers import AdaptiveConfig, FedYogiConfig
from geojax.center.spec import VectorSpec
from geojax.federated.build import build_model
from geojax.federated.feddyn import feddyn
from geojax.federated.fedfusion import fedfusion
from geojax.federated.fednova import effective_steps
from geojax.federated.scaffold import scaffold
from geojax.sync.client import Batch, ClientRule, Given, Merged, Trained

NEAR = 1e-6


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


def final(name, *, rounds=2, **settings):
    """All clients have as many samples, and so as many steps and the same weight."""
    if name == "fedavg" and not settings:
        return fedavg(rounds)
    return ended(name, rounds, settings)


@functools.cache
def fedavg(rounds):
    return ended("fedavg", rounds, {})


def ended(name, rounds, settings):
    even = {
        "device_partition__name": "iid", "device_partition__alpha": None,
        "device_partition__min_samples": None, "data__train_samples": 144,
    }  # fmt: skip
    run = config(name, rounds=rounds, **{**even, **settings})
    return compared(run, simulated(run).final)


def test_special_cases_are_fedavg():
    plain = final("fedavg")
    assert final("fedprox", keys={"mu": 0.0}).tobytes() == plain.tobytes()
    assert distance(final("fedavgm", keys={"beta": 0.0, "server_lr": 1.0}), plain) <= NEAR
    assert distance(final("fednova"), plain) <= NEAR
    assert distance(final("fedprox", keys={"mu": 0.5}), plain) > 1000 * NEAR


def test_objectives_whose_terms_count_nothing_are_fedavg():
    plain = final("fedavg")
    assert distance(final("fedmmd", keys={"lam": 0.0}), plain) <= NEAR
    assert distance(final("moon", keys={"mu": 0.0}), plain) <= NEAR
    assert distance(final("moon", keys={"mu": 1.0}), plain) > 1000 * NEAR


def test_the_first_round_of_scaffold_is_fedavg_and_the_second_is_not():
    first = final("scaffold", rounds=1)
    plain, uniform = final("fedavg", rounds=1), first[: len(final("fedavg", rounds=1))]
    assert distance(uniform, plain) <= NEAR
    two = final("fedavg")
    assert distance(final("scaffold")[: len(two)], two) > 1000 * NEAR


@pytest.mark.parametrize("operator", ["conv", "multi", "single"])
def test_a_fusion_begins_as_the_model_alone(operator):
    """With y from other parameters than z, loss and gradients are those of the model."""
    rule = fedfusion(operator=operator)
    run = config("fedfusion", keys={"operator": operator}, model__name="small_cnn")
    model = build_model(run, rule)
    draws = np.random.default_rng(0)
    batch = Batch(
        draws.random((3, 8, 8, 1), np.float32), np.array([1, 2, 3]), np.array([1.0, 1.0, 0.0]),
        {}, {}, None,
    )  # fmt: skip
    start, _, rest = model.cut(model.initial(0))
    given = Given(model.cut(model.initial(1))[0], np.zeros(0, np.float32), rest, {})

    def plain(w):
        return model.loss(w, batch)[0]

    def fused(w):
        return rule.objective(model, w, given, batch)[0]

    quickly = {"xla_backend_optimization_level": 0}
    both = jax.jit(
        lambda w: (jax.value_and_grad(plain)(w), jax.value_and_grad(fused)(w)),
        compiler_options=quickly,
    )
    (loss, gradient), (fused_loss, fused_gradient) = both(model.arrays(jnp.array(start)))
    assert float(loss) == pytest.approx(float(fused_loss), abs=1e-6)
    for name, values in gradient.parameters.items():
        np.testing.assert_allclose(values, fused_gradient.parameters[name], atol=1e-6)


def test_fusion_that_is_frozen_at_zero_is_the_plain_mean():
    cnn = {"model__name": "cnn_batchnorm", "sync__epochs": 1}
    fused = final("fedfusion", rounds=1, keys={"operator": "single", "frozen": True}, **cnn)
    plain = final("fedavg", rounds=1, **cnn)
    assert fused[-1] == 0, "gamma"
    assert distance(fused[: len(plain)], plain) <= NEAR


@pytest.mark.parametrize("execution", ["scan", "vmap"])
def test_all_executions_train_the_same(execution):
    uneven = {"device_partition__name": "dirichlet", "device_partition__alpha": 1.0,
              "device_partition__min_samples": 9}  # fmt: skip
    loop = final("scaffold", keys={"execution": "loop"}, **uneven)
    other = final("scaffold", keys={"execution": execution}, **uneven)
    assert distance(other, loop) <= NEAR


# ---- two clients with quadratic losses: the rules by themselves, without an engine

CURVATURE, MINIMUM, RATE = (1.0, 3.0), (-1.0, 2.0), 0.05
OPTIMUM = sum(a * b for a, b in zip(CURVATURE, MINIMUM, strict=True)) / sum(CURVATURE)


def converged(rule, *, rounds=400, steps=(10, 10), absent=0):
    """Where w ends if client k minimizes ½ a_k (w − b_k)²; ``absent``: clients that never come."""
    w, extras, kept = np.zeros(1, np.float32), {}, [{}, {}]
    state = rule.server.init(1) if rule.server else {}
    for name in ("c", "clients_per_participant"):
        extras[name] = np.zeros(1, np.float32)
    for _ in range(rounds):
        sent = []
        for k, (a, b, tau) in enumerate(zip(CURVATURE, MINIMUM, steps, strict=True)):
            own = {name: kept[k].get(name, np.zeros(1, np.float32)) for name in rule.keeps}
            given, p = Given(w, None, extras, own), w.copy()
            for _ in range(tau):
                gradient = np.float32(a) * (p - np.float32(b))
                if rule.correct:
                    gradient = rule.correct(gradient, p, given)
                p = p - np.float32(RATE) * gradient
            share = (2 + absent) / 2
            sent.append(rule.finish(Trained(given, p, tau, 1, RATE, 0.0, share)))
            kept[k].update(sent[-1].kept)
        means = {
            name: np.mean([np.asarray(each.extras[name]).reshape(1) for each in sent], axis=0)
            for name in sent[0].extras
        }
        delta = np.mean([each.delta for each in sent], axis=0)
        if rule.server:
            delta, new, state = rule.server.update(Merged(delta, means, extras), state)
            means.update(new)
        w, extras = (w + delta).astype(np.float32), {**extras, **means}
    return float(w[0])


def test_scaffold_and_feddyn_end_at_the_optimum_where_fedavg_drifts():
    assert abs(converged(ClientRule("fedavg")) - OPTIMUM) > 0.1
    assert abs(converged(scaffold()) - OPTIMUM) < 1e-3
    assert abs(converged(feddyn(alpha=0.5)) - OPTIMUM) < 1e-3


def test_scaffold_divides_by_steps_so_unequal_ones_do_no_harm():
    """FL-bench divided by epochs; then clients of unequal steps pull the optimum away."""
    assert abs(converged(scaffold(), steps=(5, 20)) - OPTIMUM) < 1e-3


def done(**changed):
    given = Given(
        np.array([1.0], np.float32), None, {"c": np.array([0.25], np.float32)},
        {"c": np.array([0.5], np.float32), "h": np.array([0.5], np.float32)},
    )  # fmt: skip
    values = {"given": given, "end": np.array([0.0], np.float32), "steps": 4, "samples": 9,
              "lr": 0.5, "momentum": 0.0, "share": 5.0}  # fmt: skip
    return Trained(**{**values, **changed})


def test_control_variates_are_of_option_two():
    sent = scaffold().finish(done())
    assert sent.kept["c"] == 0.5 - 0.25 + 1.0 / (4 * 0.5)
    assert sent.extras["c"] == sent.kept["c"] - 0.5


def test_the_servers_variate_moves_by_the_share_of_clients_that_took_part():
    """NIID-Bench issue 12: the mean over S counts |S|/N."""
    merged = Merged(
        np.zeros(1, np.float32),
        {"c": np.array([2.0]), "clients_per_participant": np.array([5.0])},
        {"c": np.array([1.0]), "clients_per_participant": np.array([1.0])},
    )
    rule = scaffold().server
    assert rule is not None
    assert rule.update(merged, {})[1]["c"] == 1 + 2 / 5


def test_the_servers_h_moves_by_the_sum_over_participants_divided_by_all_clients():
    rule = feddyn(alpha=0.5).server
    assert rule is not None
    share = {"clients_per_participant": np.array([5.0])}
    merged = Merged(np.array([1.0], np.float32), share, share)
    step, _, state = rule.update(merged, {"h": np.array([0.25], np.float32)})
    assert state["h"] == pytest.approx(0.25 - 0.5 * 1.0 / 5)
    assert step == pytest.approx(1 - 0.15 / 0.5)
    assert feddyn(alpha=0.5).finish(done()).kept["h"] == 0.5 - 0.5 * -1.0


def test_a_start_without_steps_taken_keeps_variates_at_zero():
    """NIID-Bench issue 8: variates begin at zero, not at the first gradient."""
    from geojax.sync.client import Extra

    class Shapes:
        parameters, channels = 7, 1

    assert scaffold().keeps == {"c": "zeros"}
    assert Extra("c", (7,)) in scaffold().extras(Shapes())


def test_steps_with_momentum_count_as_often_as_their_gradient_is_applied():
    velocity = total = 0.0
    for tau in range(1, 9):
        velocity = 0.9 * velocity + 1
        total += velocity
        assert effective_steps(tau, 0.9) == pytest.approx(total)
        assert effective_steps(tau, 0.0) == tau


# ---- servers

SPEC = VectorSpec.of([("w", (2,))])


def outer_steps(config, gradients):
    outer = build_outer_optimizer(config, 0.1, SPEC)
    vector = np.zeros(2, np.float32)
    for gradient in gradients:
        vector = outer.apply(vector, np.array(gradient, np.float32))
    return vector


def test_adaptive_servers_have_no_bias_correction():
    one = outer_steps(AdaptiveConfig(b1=0.9, b2=0.99, eps=1e-3), [[1.0, -2.0]])
    d = np.array([-1.0, 2.0])
    np.testing.assert_allclose(one, 0.1 * 0.1 * d / (np.sqrt(0.01 * d * d) + 1e-3), rtol=1e-6)


def test_yogi_lets_v_fall_by_a_bounded_amount_and_adam_by_a_share():
    gradients = [[10.0, 10.0], [0.1, 0.1], [0.1, 0.1]]
    adam = outer_steps(AdaptiveConfig(b1=0.0, b2=0.5, eps=1e-3), gradients)
    yogi = outer_steps(FedYogiConfig(b1=0.0, b2=0.5, eps=1e-3), gradients)
    assert abs(adam[0]) > abs(yogi[0]), "Yogi forgets the large gradient more slowly"
