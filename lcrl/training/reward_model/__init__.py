"""run="reward_model": a policy's body with a scalar head learns the reward of an answer.

head       the head: its parameters, adapters and scorer
metrics    ordering of held-out answers, correlations of rewards with length
evaluate   evaluation, summary and report
settings   the sections of its configs
run        all of it as a `Run` for the loop; steps and batches are those of runs on pairs
learned    a trained reward model as a signal of rollouts: the section learned of other runs
"""
