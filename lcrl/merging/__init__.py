"""Weight-space methods: models are combined or edited, and nothing is trained.

`lcrl-merge` works on folders of safetensors. The methods are bare functions of
arrays: `arithmetic` (averages, task vectors, spherical interpolation), `signs` (TIES, DARE, SCE),
`selective` (DLER: only the largest changes), `activations` (AIM), `sensitivity` (Sens-Merging),
`low_rank` (LoRE) and `thinkedit` (edits of attention heads). `calibration` measures activations and
gradients; `folders`, `peft` and `shards` read and write files.
"""
