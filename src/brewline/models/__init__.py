"""The models: frozen CLIP towers, learned prompts, the acoustic branch, their fusion and losses."""
