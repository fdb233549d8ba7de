"""Runs on stored answers: run="preference" trains on pairs, run="sft" on one answer a prompt.

settings    the sections of their configs
learner     the compiled programs: state, update, scores
losses      the losses that a config can name, and the inputs that they need
mismatched  a third side for KTO
references  log-probs of the reference: cached, shared, frozen
metrics     accuracy on pairs, margins, correlation of rewards with length
sampled     answers of the policy itself, whose length training may change
evaluate    evaluation, summary and report
run         all of it as a `Run` for the loop
"""
