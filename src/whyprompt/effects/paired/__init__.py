"""Both arms on the same items: each item compared with itself."""
