"""The four actors of a run: worker, local server, global server, scheduler."""
