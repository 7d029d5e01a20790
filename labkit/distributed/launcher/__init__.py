"""Start ranks, join them, and end them all when one fails."""
