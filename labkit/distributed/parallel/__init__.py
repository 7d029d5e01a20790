"""One model on many ranks: split by batch, by layer, inside layers, or by states."""
