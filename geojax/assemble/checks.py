"""What is wrong with a configuration, before any process starts."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from geojax.assemble.agreement import answer_codec, lan_codec, sync_of
from geojax.assemble.contributors import check_contributors
from geojax.assemble.fleets import check_devices, has_devices
from geojax.axes import check as check_values
from geojax.center.fragments import layers_of
from geojax.center.optimizers import OUTER_OPTIMIZERS, check_optimizer
from geojax.center.pace import build_pace
from geojax.center.spec import VectorSpec
from geojax.center.stages import check_p3
from geojax.center.synthetic_layout import synthetic_spec
from geojax.compression.codec import Codec
from geojax.compression.registry import build_codec
from geojax.config import RunConfig
from geojax.data.dataset import DATASETS
from geojax.data.partitions import PARTITIONS
from geojax.errors import ConfigError, nearest
from geojax.federated import build as federated
from geojax.hips.cluster import WAN_GROUP, Cluster
from geojax.hips.exchange.shard import check_shards
from geojax.hollow import SIZE_ONLY
from geojax.models.losses import LOSSES
from geojax.models.registry import SYNTHETIC, model_info
from geojax.overlay.base import Overlay
from geojax.overlay.policy.cutting import chunk_count
from geojax.overlay.policy.policy import Policy
from geojax.overlay.registry import build_overlay
from geojax.overlay.view import NetworkView
from geojax.sync.algorithm import SyncAlgorithm
from geojax.sync.registry import build_sync

log = logging.getLogger("geojax.assemble")

MOST_ROUNDS = 2**31 - 1  # within centers too: frames have 32 bits for their number


def check(config: RunConfig, cluster: Cluster, view: NetworkView) -> None:
    """Finds what is wrong with a configuration before any process starts.

    Raises:
      ConfigError: names the key, the value and the fix.
    """
    check_values(config)
    if config.batch_size % config.mesh_size and not has_devices(config):
        fix = f"must divide by testbed.devices = {config.mesh_size}"
        raise ConfigError("batch_size", config.batch_size, fix)
    for center in config.pace.centers:
        if center not in cluster.servers:
            raise ConfigError("pace.centers", center, nearest(center, cluster.servers))
    check_optimizer(config.optimizer, config.rate_of(config.optimizer))
    if config.outer_optimizer.name != "auto":
        outer = config.outer_optimizer
        check_optimizer(outer, config.rate_of(outer), key="outer_optimizer")
    check_p3(config)
    algorithm = build_sync(config.sync)
    if algorithm.client is not None:
        federated.check(config, algorithm.client)
    if config.rounds * algorithm.lan_rounds > MOST_ROUNDS:
        fix = (
            f"with up to {algorithm.lan_rounds} exchanges within a center in each, more than "
            f"{MOST_ROUNDS} can be counted; use at most {MOST_ROUNDS // algorithm.lan_rounds}"
        )
        raise ConfigError("rounds", config.rounds, fix)
    _warn(config)
    codec = build_codec(config.compression)
    _check_offers(config, algorithm)
    _check_inner(config, algorithm)
    _check_fragments(config, algorithm, cluster)
    _check_pieces(config, algorithm)
    simulated = config.testbed.name == "simulated" and config.model.name == SYNTHETIC
    if codec.name == SIZE_ONLY and not simulated:
        raise ConfigError(
            "compression.name", codec.name,
            "moves no content: use it with testbed=simulated and model=synthetic, or "
            "compression=dense",
        )  # fmt: skip
    check_devices(config, cluster, algorithm)
    _check_services(algorithm, cluster)
    _check_lan_tier(config, algorithm, codec, cluster)
    _check_awareness(config, algorithm)
    overlay = build_overlay(config.overlay, cluster.servers, cluster.global_servers)
    sketch = overlay.sketch or overlay.plan
    policy = sketch(view, cluster.groups(cluster.members)[WAN_GROUP], (1,), 0)
    _check_trees(config, policy, cluster.servers)
    depth = max(_depth(policy, member) for member in policy.members)
    if depth > 1 and not codec.exact_combine:
        raise ConfigError(
            "compression.name", config.compression.name,
            f"cannot be summed exactly on the deep trees of overlay={config.overlay.name}; "
            "use overlay=star or compression=dense",
        )  # fmt: skip
    complete = sync_of(config, cluster.trainers)
    _check_algorithm(config, complete, codec, cluster.servers)
    check_contributors(config, complete, codec, cluster.servers)
    if algorithm.admission.exchange == "server":
        _check_servers(config, algorithm, overlay, len(policy.trees))
    for name in cluster.trainers:
        build_pace(config, cluster.trainers, name)
    model_info(config.model)
    if config.model.name != SYNTHETIC:
        LOSSES[config.loss]
        DATASETS[config.data.name]
        PARTITIONS[config.partition.name]


def _warn(config: RunConfig) -> None:
    """Says what is valid and rarely wanted."""
    if config.overlay.auxiliary != "none" and config.overlay.name == "packing":
        log.warning(
            "overlay.auxiliary = %s: the trees of overlay=packing fill the links already; what "
            "leaves them has cost up to 0.8 of the time more; use none",
            config.overlay.auxiliary,
        )
    if config.sync.name == "dc_aha" and config.optimizer.name != "sgd":
        log.warning(
            "optimizer = %s: sync=dc_aha takes what its steps have moved, over the learning rate, "
            "for a gradient, and compensates its square; use optimizer=sgd, or sync.lam=0",
            config.optimizer.name,
        )


def _check_servers(
    config: RunConfig, algorithm: SyncAlgorithm, overlay: Overlay, servers: int
) -> None:
    """Refuses settings that do not go with centers that exchange one by one with global servers."""
    if build_codec(config.compression).splits:
        # A push is applied at once, and no merge comes after it that late parts could join.
        fix = (
            f"a push to the global servers of sync={config.sync.name} has no late parts; use "
            f"sync=fsa with it, or compression=fp16 with sync={config.sync.name}"
        )
        raise ConfigError("compression.name", config.compression.name, fix)
    if config.overlay.auxiliary != "none":
        fix = f"sync={config.sync.name} has no trees whose chunks could take another path; use none"
        raise ConfigError("overlay.auxiliary", config.overlay.auxiliary, fix)
    if not overlay.serves:
        fix = f"sync={config.sync.name} has global servers; use overlay=star or overlay=multigps"
        raise ConfigError("overlay.name", config.overlay.name, fix)
    outer = config.outer_optimizer
    key = "optimizer" if outer.name == "auto" else "outer_optimizer"
    if key == "outer_optimizer" or algorithm.outer_default == "optimizer":
        check_shards(getattr(config, key), servers, key=key)
    if config.checkpoint_every and config.compression.name == SIZE_ONLY:
        fix = f"compression={SIZE_ONLY} has no pushes that could be kept; use 0"
        raise ConfigError("checkpoint_every", config.checkpoint_every, fix)


def _check_algorithm(
    config: RunConfig, algorithm: SyncAlgorithm, codec: Codec, centers: Sequence[str]
) -> None:
    """Refuses what the rules of an algorithm cannot do in this run."""
    least, sync = algorithm.admission.least, config.sync.name
    if least is not None and least[2] > len(centers):
        key, value, _ = least
        fix = (
            f"wan={config.wan.name} has {len(centers)} centers, too few for sync={sync}; "
            f"use at most {len(centers)}, e.g. {key}={len(centers)}, or more wan.centers"
        )
        raise ConfigError(key, value, fix)
    longest, round_s = algorithm.admission.longest, config.timeouts.round
    if longest is not None and longest[1] >= round_s:
        fix = f"centers give up after timeouts.round = {round_s:g} s; use less, or a longer timeout"
        raise ConfigError(*longest, fix)
    whole = codec.splits or answer_codec(codec).name == codec.name  # split ones never go there
    if algorithm.offer.name == "parameters" and not whole:
        fix = (
            f"sync={sync} offers parameters, of which nothing may be left out; use "
            f"compression=fp16 with sync={sync}, or sync=fedbuff with compression={codec.name}"
        )
        raise ConfigError("compression.name", codec.name, fix)
    if not algorithm.merge.outer and config.outer_optimizer.name != "auto":
        fix = f"sync={sync} mixes parameters and takes no outer step; use outer_optimizer=auto"
        raise ConfigError("outer_optimizer.name", config.outer_optimizer.name, fix)


def _check_services(algorithm: SyncAlgorithm, cluster: Cluster) -> None:
    """Refuses a state server that has nobody to align."""
    several = [center for center in cluster.servers if cluster.workers(center)]
    rule = algorithm.local_steps.in_round
    hosts = {service.name: service.at_scheduler for service in algorithm.services}
    if rule is None:
        return
    if hosts[rule.service] and several:
        fix = (
            f"aligns centers of one worker, and {several[0]} has more; use sync.level=workers, or "
            "lan.workers=1"
        )
        raise ConfigError("sync.level", "centers", fix)
    if not hosts[rule.service] and not several:
        fix = (
            "aligns the workers of a center, and no center has more than one; use "
            "sync.level=centers, or lan.workers=2"
        )
        raise ConfigError("sync.level", "workers" if algorithm.inner is None else "both", fix)


def _check_lan_tier(
    config: RunConfig, algorithm: SyncAlgorithm, codec: Codec, cluster: Cluster
) -> None:
    """Refuses what LANs, or local servers that wait for none of their workers, cannot do."""
    several = any(cluster.workers(center) for center in cluster.servers)
    if config.overlay.lan != "star":
        _check_lan_overlay(config, algorithm, lan_codec(config, codec, 0), several)
    if algorithm.lan is None:
        return
    name, without = config.sync.name, [c for c in cluster.servers if not cluster.workers(c)]
    if without:
        fix = (
            f"sync={name} has a local server between workers and the WAN, and that of {without[0]} "
            "has its only worker in it; use lan.workers=2 or more, or sync=async_diloco"
        )
        raise ConfigError("lan.workers", config.lan.workers, fix)


def _check_lan_overlay(
    config: RunConfig, algorithm: SyncAlgorithm, codec: Codec, several: bool
) -> None:
    """Refuses sums at workers where there are none, or where the codec cannot be summed on."""
    if not several:
        fix = "no center has more than one worker; use lan.workers=2 or more, or overlay.lan=star"
    elif algorithm.lan is not None:
        fix = f"sync={config.sync.name} has local servers that sum nothing; use overlay.lan=star"
    elif not codec.exact_combine:
        fix = f"{codec.name} cannot be summed twice on its way; use star, or compression.lan=fp16"
    else:
        return
    raise ConfigError("overlay.lan", config.overlay.lan, fix)


def _check_awareness(config: RunConfig, algorithm: SyncAlgorithm) -> None:
    """Refuses measured rates where plans never change."""
    if config.overlay.awareness == "measured" and algorithm.admission.exchange == "server":
        fix = (
            f"sync={config.sync.name} keeps the routes that it began with; use oracle, or a "
            "synchronous algorithm such as sync=fsa"
        )
        raise ConfigError("overlay.awareness", "measured", fix)


def _check_offers(config: RunConfig, algorithm: SyncAlgorithm) -> None:
    """Refuses settings that do not go with the testbed or with the algorithm's offers."""
    if config.stop_at_target and config.testbed.name != "simulated":
        fix = f"testbed={config.testbed.name} evaluates after the run; use testbed=simulated"
        raise ConfigError("stop_at_target", True, fix)
    if config.nonfinite == "skip" and algorithm.offer.inner:
        fix = f"sync={config.sync.name} steps locally, and such a step cannot be undone; use stop"
        raise ConfigError("nonfinite", "skip", fix)
    if config.nonfinite == "skip" and config.sync.p3:
        fix = "with sync.p3 half of the gradient has left when the rest is found; use stop"
        raise ConfigError("nonfinite", "skip", fix)


def _check_inner(config: RunConfig, algorithm: SyncAlgorithm) -> None:
    """Refuses an inner optimizer, which needs whole matrices, where merged vectors take steps."""
    auto = config.outer_optimizer.name == "auto" and algorithm.outer_default == "optimizer"
    if auto and config.optimizer.name not in OUTER_OPTIMIZERS:
        fix = (
            f"sync={config.sync.name} steps with it on merged vectors, which are flat, and it "
            "steps by matrices; use it with local steps, as in sync=diloco, or optimizer=adamw"
        )
        raise ConfigError("optimizer.name", config.optimizer.name, fix)


def _check_fragments(config: RunConfig, algorithm: SyncAlgorithm, cluster: Cluster) -> None:
    """Refuses fragments where they cannot travel, or the model has fewer layers."""
    count = algorithm.fragmentation.fragments
    if count == 1:
        return
    if cluster.global_servers:
        fix = (
            f"a server on a site of its own does not know which chunks are of which fragment, and "
            f"sync.fragments = {count}; use wan.server_center=null, or sync.fragments=1"
        )
        raise ConfigError("wan.server_center", config.wan.server_center, fix)
    layers = layers_of(_layout(config))
    if count > len(layers):
        steps = count * algorithm.local_steps.steps(0)  # H, of which the fragments take equal parts
        fewer = max(each for each in range(1, len(layers) + 1) if steps % each == 0)
        fix = (
            f"model={config.model.name} has only {len(layers)} layers ({', '.join(layers[:4])}"
            f"{', …' if len(layers) > 4 else ''}); use sync.fragments={fewer} or a deeper model"
        )
        raise ConfigError("sync.fragments", count, fix)


def _check_pieces(config: RunConfig, algorithm: SyncAlgorithm) -> None:
    """Refuses pieces where the vector is parted already, or is needed as a whole."""
    pieces = config.overlay.pieces
    if pieces == 1:
        return
    sync = f"sync={config.sync.name}"
    why = ""
    if config.sync.p3:
        why = "sync.p3=true exchanges the model's stages one by one already"
    elif algorithm.fragmentation.fragments > 1:
        why = f"{sync} exchanges fragments in turn"
    elif algorithm.admission.exchange == "server" or algorithm.lan is not None:
        why = f"{sync} exchanges with global servers, which answer with whole models"
    elif algorithm.lan_rounds > 1 or algorithm.inner is not None:
        why = f"{sync} averages whole models within a center"
    elif algorithm.weights == "centers" or algorithm.client is not None:
        why = f"{sync} weighs what a center offers as a whole"
    elif config.outer_optimizer.clip_norm is not None:
        why = "outer_optimizer.clip_norm couples all layers"
    elif config.optimizer.clip_norm is not None and not algorithm.offer.inner:
        why = "optimizer.clip_norm couples all layers"
    if why:
        fix = f"{why}; use overlay.pieces=1"
        raise ConfigError("overlay.pieces", pieces, fix)
    chunks = chunk_count(_layout(config).size, config.overlay.chunk_elements)
    if pieces > chunks:
        fix = (
            f"the model has {chunks} chunks of overlay.chunk_elements = "
            f"{config.overlay.chunk_elements}; use at most {chunks}, or smaller chunks"
        )
        raise ConfigError("overlay.pieces", pieces, fix)


def _layout(config: RunConfig) -> VectorSpec:
    """Where the layers of the configured model lie; starts no backend of JAX."""
    if config.model.name == SYNTHETIC:
        return synthetic_spec(config)
    model_info(config.model)  # refuses a wrong name before JAX is imported

    from geojax.center.network import build_network

    return build_network(config).spec


def _check_trees(config: RunConfig, policy: Policy, centers: Sequence[str]) -> None:
    """Refuses the plan of an own overlay along which a round would never end."""
    known = {*centers, *policy.passive}
    ways = [(tree.root, way) for tree in policy.trees for way in (tree.parent, tree.source)]
    wrong = "" if ways and policy.members == tuple(centers) else "has other members, or no tree"
    for root, way in ways:
        lost = [name for name in {**dict.fromkeys(centers), **way} if not _leads(way, name, root)]
        if lost or not {root, *way} <= known:
            wrong = f"has a tree to {root} that does not connect {', '.join(lost) or 'centers'}"
    if wrong:
        fix = (
            f"its plan for {', '.join(centers)} {wrong}; a tree spans all members, without a cycle"
        )
        raise ConfigError("overlay.name", config.overlay.name, fix)


def _leads(way: Mapping[str, str], name: str, root: str) -> bool:
    """Whether ``way`` goes from a node to the root, and ends there."""
    for _ in way:
        if name == root:
            break
        name = way.get(name, name)
    return name == root and root not in way


def _depth(policy: Policy, member: str) -> int:
    def steps(parent: Any, node: str) -> int:
        return 0 if node not in parent else 1 + steps(parent, parent[node])

    paths = [path for tree in policy.trees for path in (tree.parent, tree.source)]
    return max(steps(path, member) for path in paths)
