"""Tasks and data sets as rows of tokens."""

from lcrl.data.prompts import prompts
from lcrl.data.rows import Rows, render_rows, sft_rows

__all__ = ["Rows", "prompts", "render_rows", "sft_rows"]
