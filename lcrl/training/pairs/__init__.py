"""Runs on answers that are there: run="preference" learns from pairs, run="sft" from one each.

settings    the sections of their configs
model       from them to what is compiled: state, update, scores
references  log-probs of the reference: cached, shared, frozen
measures    accuracy on pairs, margins, and how rewards go with length
sampled     answers of the policy itself, so that a run sees what it does to their length
run         all of it as a `Run` for the loop
"""
