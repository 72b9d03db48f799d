"""Pictures of runs: what each shows is computed by plain functions, apart from its drawing."""
