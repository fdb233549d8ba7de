"""run="reward_model": a policy's body with a scalar head learns what answers are worth.

head       one number an answer, and where the head lies beside params and adapters
measures   how well rewards order held-out answers, and how they go with length
judge      evaluation, summary and report
settings   the sections of its configs
run        all of it as a `Run` for the loop; steps and batches are those of runs on pairs
learned    a trained one as a signal of rollouts: the section learned of a run that samples
"""
