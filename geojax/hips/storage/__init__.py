"""What a run keeps: checkpoints to go on from, snapshots to evaluate."""
