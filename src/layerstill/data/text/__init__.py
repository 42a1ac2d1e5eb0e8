"""Running text without labels: documents in files, and the blocks of tokens that they are packed into."""
