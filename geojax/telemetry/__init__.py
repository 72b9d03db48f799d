"""What happened: events, traces and the summary of a run."""
