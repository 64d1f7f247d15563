"""The thin shell around the engine: everything that knows connections, waiting and real time.

It decodes requests to commands, hands each chunk of input to the engine in one call, answers, keeps FETCHes
that wait, runs the engine's timers, delivers dead letters and keeps the search index. What the protocol says
(subjects, bounds, texts) comes from `mq9_broker._generated`.
"""
