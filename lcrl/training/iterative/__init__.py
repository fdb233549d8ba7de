"""run="iterative": the policy answers, its answers are scored and paired, it learns; then again.

settings   the sections of its configs
anchors    whose log-probs a round's pairs are compared with
teacher    answers that the policy did not sample, beside its own
pool       one round: the answers, and the pairs that they make
run        all of it as a `Run` for the loop
"""
