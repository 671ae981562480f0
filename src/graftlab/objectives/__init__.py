"""What is minimised: stateless dataclasses with `terms(policy, batch)`."""
