"""The `mq9` command."""
