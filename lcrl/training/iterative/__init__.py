"""run="iterative": the policy answers, its answers are scored and paired, it learns; then again.

settings   the sections of its configs
anchors    what a round's reference may be
pool       one round's answers, and the pairs that they make
run        all of it as a `Run` for the loop
"""
