"""What travels: codecs between the dense vector and the payloads of its chunks."""
