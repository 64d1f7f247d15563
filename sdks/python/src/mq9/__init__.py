"""Asynchronous messaging for software agents: the Python client of mq9."""
