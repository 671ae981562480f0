"""One module per verb; each is `run(spec) -> result`, with no Hydra inside."""
