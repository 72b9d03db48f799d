"""Where a run happens: a WAN as data, simulated, emulated or plain loopback."""
