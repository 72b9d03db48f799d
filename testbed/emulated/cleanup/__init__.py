"""How an emulated WAN ends: on exit, on signals, after SIGKILL, by command."""
