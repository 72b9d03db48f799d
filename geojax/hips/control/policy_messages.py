"""Policies as the payload of control messages: bodies are too small for hundreds of trees."""

from __future__ import annotations

from collections.abc import Mapping

import msgpack
import numpy as np

from geojax.overlay.policy.policy import Policy
from geojax.wire.message import Payload

CONTROL_PRIORITY = -1  # before every chunk


def packed_policies(policies: Mapping[int, Policy]) -> np.ndarray:
    """The policies of some groups as bytes.

    >>> from geojax.overlay.policy.policy import Tree
    >>> policies = {0: Policy(3, ("a", "b"), (Tree("a", {"b": "a"}),))}
    >>> unpacked_policies(packed_policies(policies)) == policies
    True
    """
    values = {str(group): policy.to_dict() for group, policy in policies.items()}
    return np.frombuffer(msgpack.packb(values), np.uint8)  # type: ignore[arg-type]


def unpacked_policies(payload: Payload) -> dict[int, Policy]:
    """The inverse of :func:`packed_policies`; no payload: no policies."""
    if payload is None:
        return {}
    values = msgpack.unpackb(memoryview(payload))  # type: ignore[arg-type]
    return {int(group): Policy.from_dict(policy) for group, policy in values.items()}
