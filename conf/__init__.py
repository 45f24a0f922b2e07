"""The menu: YAML files that Hydra composes, and the schema they are checked against."""
