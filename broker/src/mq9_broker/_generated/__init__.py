"""What the broker knows of the protocol, generated from spec/."""
