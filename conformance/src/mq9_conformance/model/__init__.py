"""An independent model of mq9 mailboxes, and the means to compare it with a broker.

`reference` says what must happen, as naively as protocol.md reads: lists, sets and one loop over everything.
It shares no code with the broker, so that a mistake would have to be made twice to go unseen.
"""
