"""Broken on purpose: brokers and adapters with one wrong piece each, to prove that the scenarios notice.

Nothing of this is in the product: a mutant is put in from outside, when `MQ9_MUTANT` names it.
"""
