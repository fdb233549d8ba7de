"""From prompts to verified rollouts on the host; training and evaluation use it."""
