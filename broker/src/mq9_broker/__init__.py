"""The reference broker of mq9: asynchronous messaging for software agents, in one command."""
