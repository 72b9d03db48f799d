"""The WAN switch of the emulated testbed: delay, jitter, loss."""
