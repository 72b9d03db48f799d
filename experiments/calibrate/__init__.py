"""How well the simulator predicts the emulated WAN: `python -m experiments.calibrate`."""
