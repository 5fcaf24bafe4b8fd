"""What readers of logs share: files opened piece by piece, and what the fields in them say."""
