"""run="distill": the policy samples, and teachers' log-probs of its tokens are its advantages."""
