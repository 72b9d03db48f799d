"""The benchmark of several connections, but for the emulated WAN."""

import asyncio

import pytest

from experiments.bench import connections
from geojax.wire.tcp import TcpTransport
from testbed.wan.tcp_rates import loss_limit


def test_simulated_connections_get_as_many_times_what_one_gets_until_the_link_is_full(capsys):
    options = ["--testbeds", "simulated", "--connections", "1", "4", "auto", "--seconds", "5"]
    assert connections.main(options) == 0
    rows = [line.split("│") for line in capsys.readouterr().out.splitlines() if "│" in line]
    shares = {stated.strip(): float(share) for _, stated, _, share, _ in rows}
    one = loss_limit("cubic", 0.2, 0.001) / 300e6
    assert shares["1"] == pytest.approx(one, abs=1e-3)
    assert shares["4"] == pytest.approx(4 * one, abs=1e-3)
    assert shares["auto"] == pytest.approx(0.95, abs=0.01)


def test_what_the_processes_of_an_emulated_wan_do_works_over_loopback():
    async def scenario():
        addresses = dict.fromkeys((connections.FROM, connections.TO), ("127.0.0.1", 0))
        nodes = {}
        for name in addresses:
            node = nodes[name] = TcpTransport(
                name, addresses[name], addresses, run_id="bench", connect_timeout=5.0,
                connections=lambda _source, _target: 3,
            )  # fmt: skip
            await node.start()
            addresses[name] = node.address
        sending = asyncio.create_task(connections.stream(nodes[connections.FROM], 3))
        rate = await connections.rate_of(nodes[connections.TO], 0.05, 0.1)
        nodes[connections.TO].abort()
        await sending
        for node in nodes.values():
            node.abort()
            await node.close()
        assert rate > 10e6

    asyncio.run(scenario())


def test_a_wrong_number_is_refused(capsys):
    assert connections.main(["--testbeds", "simulated", "--connections", "0"]) == 2
    assert "wan.connections = 0" in capsys.readouterr().err


@pytest.mark.emulated
def test_a_small_emulated_link_is_measured(capsys):
    small = ["--rate", "10", "--rtt", "20", "--loss", "0", "--skip", "1", "--seconds", "1"]
    assert connections.main([*small, "--testbeds", "emulated", "--connections", "3"]) == 0
    (row,) = [line.split("│") for line in capsys.readouterr().out.splitlines() if "│" in line]
    assert float(row[3]) > 0.5
