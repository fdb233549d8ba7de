"""run="rl": a step collects rollouts, shapes them and updates the policy."""
