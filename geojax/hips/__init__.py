"""The roles that act: worker, local server, scheduler, and the exchange engine between them."""
