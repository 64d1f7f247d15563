"""The conformance suite of mq9: the same scenarios replayed against every SDK and any broker."""
