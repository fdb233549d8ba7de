"""run="iterative": each round samples answers, scores and pairs them, and trains on the pairs.

settings          the sections of its configs
reference_policy  the policy whose log-probs the loss compares with
teacher           answers of another model, added to those of the policy
pool              one round: answers, scores and pairs
run               all of it as a `Run` for the loop
"""
