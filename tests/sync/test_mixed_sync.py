"""What MixedSync is composed of."""

import pytest

from geojax.errors import ConfigError
from geojax.sync.fsa import fsa
from geojax.sync.mixed_sync import MixedSyncConfig, mixed_sync
from geojax.sync.registry import SYNCS, build_sync


def test_it_is_fsa_with_another_admission():
    mixed, synchronous = mixed_sync(), fsa()
    assert (mixed.admission.name, mixed.admission.exchange) == ("immediately", "server")
    assert mixed.merge.name == "one by one"
    for part in ("offer", "local_steps"):
        assert getattr(mixed, part).name == getattr(synchronous, part).name
    assert mixed.outer_default == synchronous.outer_default


def test_compensation_and_bound_are_its_settings():
    algorithm = mixed_sync(compensation="adaptive", staleness=3)
    assert algorithm.merge.name == "one by one, adaptive compensation"
    assert algorithm.admission.name == "immediately, at most 3 rounds ahead"


def test_a_negative_bound_is_refused():
    with pytest.raises(ConfigError, match=r"sync\.staleness = -1: .*at least 0"):
        build_sync(MixedSyncConfig(staleness=-1))


def test_the_configuration_names_its_settings():
    built = build_sync(MixedSyncConfig(compensation="constant", lam=0.1, staleness=2))
    assert built.merge.name == "one by one, constant compensation"
    assert built.admission.name == "immediately, at most 2 rounds ahead"


def test_more_than_one_local_step_is_refused():
    with pytest.raises(
        ConfigError, match=r"sync\.local_steps = 4: sync=mixed_sync does not read it"
    ):
        build_sync(SYNCS.settings("mixed_sync", local_steps=4))
