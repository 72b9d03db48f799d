"""How bytes travel: messages, frames, priorities and the transports that move them."""
