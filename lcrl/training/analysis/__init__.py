"""What a run needs before it starts: memory and collectives of its compiled step."""
