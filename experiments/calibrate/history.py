"""What had been seen of the simulator's errors when its constants were chosen; for the report."""

from __future__ import annotations

FREEZE = "4a754a2"  # the commit

HISTORY = (
    "The order in which things were written and seen, by the commits of this repository:",
    "\n".join(
        (
            "1. 23 November 2026, 01:13 (d7e393b): twelve cases, six to fit on and six held out; "
            "two constants, `goodput_factor` and `sum_gbps`.",
            "2. 01:37 (328a7b3): a third constant entered, `rtt_bias`, with a default of 1.",
            "3. 02:33 (ef03f4f): one commit had the page with the emulated figures of all twelve "
            "cases, and changed the default of `rtt_bias` to the 0.5 of its fit. So the six "
            "held-out cases were not held out from the choice of the model: without `rtt_bias` "
            "sparse8-star has -16.4%, with it -11.2%. The page told a mean of 4.7%.",
            "4. 29 November 2026 (042d51e): queues go by the age of a round first; the simulator "
            "and the real processes share that code. The kept figures are older. Of the twelve "
            "simulated times this moves one, net9-all-redrawn, from +6.1 to -2.6% of its "
            "emulated figure of before; that case was thrown away, eleven are left. In the other "
            "sharded stars, too, the order of real messages may differ from that of then.",
            f"5. 30 November 2026 ({FREEZE}): all constants frozen, at the values they had. All "
            "twelve old cases had been seen by then; they count as fitted now.",
            "6. After it the held-out cases below were written, and what the simulator predicts "
            "for them was committed on this page before any of them was emulated.",
            "7. Later on that day they were emulated, three times each, with the figures below. "
            "Nothing was changed after it. The one with lost packets (mesh4-star-loss) is far off: "
            "the simulator bounds a connection's mean rate on a lossy link, by formulas for long "
            "transfers, and what single losses cost a shorter one it leaves out (so its module "
            "says). Its real rounds were longer by a third.",
        )
    ),
    "Tried before the freeze, and left out: a bound on how fast a connection's rate may rise, by "
    "a window of so many times what its path takes (the headroom) that grows by a segment per "
    "round trip where there is room (RFC 5681, RFC 9438). `python -m "
    "experiments.calibrate.window_growth` repeats it on the eleven cases that are left: their "
    "mean error is 3.6% without it, and 3.6%, 3.7%, 3.6% and 4.2% with a headroom of 3, 2, 1.5 "
    "and 1; the worst, capped5-star, stays at -12.5%. It helps sparse8-star (-11.2 to -7.1% with "
    "1.5) and harms other stars.",
    "Why it does not help: in the simulator the flows of a star have equal shares and end "
    "together, so none is left to grow. On Mininet they do not. In one round of an emulated "
    "capped5-star with `events=chunk` (30 November 2026) four equal senders ended 1.28, 1.40, "
    "1.46 and 1.56 s after the last offer, and those that were left had 39 of 51 Mbit/s. Shares "
    "with a random spread of 8% would bring capped5-star to -5.6% and sparse8-star to -10.4%, but "
    "capped6-all from -6.5 to +7.3%; that trial is not in the code. So where several connections "
    "share one queue (access caps, packets relayed by fewest hops), expect a star to be some 10% "
    "slower than simulated.",
)
