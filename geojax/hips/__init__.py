"""HiPS: the roles of a run, what controls them, and the exchange between them."""
