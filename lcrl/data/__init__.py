"""From tasks to token rows."""

from lcrl.data.prompts import prompts
from lcrl.data.rows import Rows, render_rows, sft_rows

__all__ = ["Rows", "prompts", "render_rows", "sft_rows"]
