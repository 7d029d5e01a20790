"""What ranks send each other: sums and means of tensors, with fewer messages or fewer bytes."""
