"""The oracle of a run of real processes: the testbed says how the WAN changes, the plans follow."""

import asyncio
import json

import pytest
from simulated_runs import simulated, small_config

from geojax import node
from geojax.hips.context import Oracle
from testbed.run import prepare, run

STEPS = {"kind": "steps", "steps": [{"at": 0.5, "between": ["c1", "c2"], "factor": 0.01}]}


def changing(**settings):
    config = small_config(rounds=30, overlay__name="packing", eval_every_s=100.0, **settings)
    config.wan.dynamics = STEPS
    config.model.pace_s = 0.1
    return config


def test_the_scheduler_of_real_processes_plans_anew_when_the_wan_changes(tmp_path):
    run(changing(testbed__name="local"), tmp_path)
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    changes = [event for event in events if event["event"] == "policy"]
    assert [(change["version"], change["reason"]) for change in changes] == [(1, "rates")]
    assert changes[0]["t"] >= 0.5
    finals = {(e["round"], e["digest"]) for e in events if e["event"] == "final"}
    assert finals == set(simulated(changing()).finals.values())
    told = json.loads((tmp_path / node.VIEW).read_text())
    rates = {(source, target): rate for source, target, rate in told["rate"]}
    before = json.loads((tmp_path / "run.json").read_text())["view"]["rate"]
    for source, target, rate in before:
        slower = {source, target} == {"c1", "c2"}
        assert rates[source, target] == pytest.approx(rate * (0.01 if slower else 1.0))


def test_the_scheduler_takes_the_view_that_was_written_last(tmp_path):
    view = prepare(small_config(), tmp_path)[0].view
    oracle = Oracle(view)
    edge = next(iter(view.rate))

    async def until(rate):
        async with asyncio.timeout(20):
            while oracle.view.rate[edge] != rate:
                await asyncio.sleep(0.01)

    async def main():
        following = asyncio.create_task(node.follow_view(tmp_path, oracle))
        for rate in (1e6, 0.0, 2e6):
            node.write_view(tmp_path, view.with_rates({edge: rate}))
            await until(rate)
        assert oracle.view.with_rates({edge: view.rate[edge]}) == view
        following.cancel()

    asyncio.run(main())
