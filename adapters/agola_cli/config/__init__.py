"""Commands and helpers for settings and run configurations: `config`, `completion`, and the `agola-core.toml` file."""
