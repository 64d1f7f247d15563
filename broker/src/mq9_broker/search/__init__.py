"""Search over the registry: an index derived from what is registered, in a process of its own.

`process.py` is what the broker talks to; `worker.py` runs in the other process and owns a `SearchIndex`
(`index.py`): words (`words.py`, `keywords.py`), vectors (`embedders.py`, `vectors.py`) and what they have in
common (`cards.py`: which strings of a body say what). Nothing here is needed to store or deliver a message.
"""
