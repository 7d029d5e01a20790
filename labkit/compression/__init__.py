"""Make a trained model smaller and faster, and prove what that costs: `prune`, `quantize`."""
