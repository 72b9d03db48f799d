"""Plans made beside a run, when what is believed about the WAN has changed."""

from __future__ import annotations

import logging
import math

from geojax.awareness.views import WanView
from geojax.hips.cluster import WAN_GROUP
from geojax.hips.context import NodeContext
from geojax.hips.control.background import Background
from geojax.hips.control.channel import ControlChannel
from geojax.hips.control.epochs import Epochs
from geojax.hips.control.grants import Grants
from geojax.hips.control.messages import NewPolicy
from geojax.hips.control.path_tables import PathTables
from geojax.hips.control.policies import Policies
from geojax.hips.control.takeovers import TakeOvers
from geojax.overlay.policy.planning import Proposal
from geojax.overlay.routes.static_routes import two_way

log = logging.getLogger("geojax.scheduler")


class Replanning:
    """Compares the present policy with a fresh plan, one at a time, and takes the better one.

    A plan is taken if it saves more than ``overlay.hysteresis`` of the present policy's estimated
    time. It is dropped if another epoch has begun meanwhile. If a policy in use needs a link that
    is out (:func:`geojax.overlay.routes.static_routes.two_way`) and the plan does not, a new epoch
    begins at once, so that the stuck round runs again over other links.

    Args:
      context: the scheduler's node.
      channel: says what members are told.
      background: where plans are made.
      epochs: the membership.
      policies: that rounds go by.
      grants: of the members.
      tables: auxiliary paths.
      wan_view: what the WAN is believed to be.
      take_overs: has plans take over rounds under way; None: rounds that are granted already go on
        by the policy that they were granted with.
    """

    def __init__(
        self,
        context: NodeContext,
        channel: ControlChannel,
        background: Background,
        *,
        epochs: Epochs,
        policies: Policies,
        grants: Grants,
        tables: PathTables,
        wan_view: WanView,
        take_overs: TakeOvers | None = None,
    ):
        self._recorder = context.recorder
        self._hysteresis = context.setup.config.overlay.hysteresis
        self._channel, self._background, self._epochs = channel, background, epochs
        self._policies, self._grants, self._tables = policies, grants, tables
        self._wan_view, self._take_overs = wan_view, take_overs
        self._comparing = False

    def reconsider(self) -> None:
        """Plans again if the view has changed, unless another plan or change is under way."""
        busy = self._comparing or self._epochs.changing or self._epochs.over
        busy = busy or (self._take_overs is not None and self._take_overs.pending)
        if not busy and self._policies.outdated:
            self._comparing = True
            self._background.start(self._compare(self._epochs.number))

    async def _compare(self, epoch: int) -> None:
        held = min(self._grants.held.get(name, -1) for name in self._epochs.roster.centers)
        proposal = await self._policies.compare(self._epochs.roster.alive, held)
        self._comparing = False
        if epoch == self._epochs.number and not self._epochs.over:
            self._decide(proposal)
        self.reconsider()

    def _decide(self, proposal: Proposal) -> None:
        present, view = proposal.present_s[-1], two_way(self._wan_view.view())
        cut = any(map(math.isinf, proposal.present_s))
        cut = cut or self._epochs.transfers.cut(self._grants.held, view)
        if cut and not math.isinf(proposal.seconds):
            log.warning("a link that the round needs is out: new epoch")
            self._epochs.change((), wan=proposal.policy)
        elif present - proposal.seconds > self._hysteresis * present:
            if self._take_overs is not None and self._take_overs.pays(proposal, view):
                self._take_overs.begin(proposal)
            else:
                self._take(proposal)

    def _take(self, proposal: Proposal) -> None:
        """Takes another policy for all rounds that are not granted yet."""
        first, policy = self._grants.common.until, proposal.policy
        if self._grants.common.final:  # no round will go by it
            return
        self._policies.change(first, policy)
        told = NewPolicy(self._epochs.number, first, {WAN_GROUP: policy})
        for name in self._epochs.roster.groups[WAN_GROUP]:
            self._channel.say(name, told)
        self._tables.tell(*self._policies.present)
        self._policies.record(self._recorder, first, "rates")
        self._policies.record_loads(self._recorder)
