"""Models behind an OpenAI-compatible interface: asked, paid for once, and proved before they are believed."""
