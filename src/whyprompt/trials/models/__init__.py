"""White-box language models: loading, scoring, completing."""
