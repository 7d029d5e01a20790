"""Training loops that do the same work, one file a library.

Each module has `fit(model, data, folder)`: it trains `model` in place on `data`, one step a batch,
one pass, with `work.optimizer` and cross-entropy. There is no log, no progress bar, no checkpoint
and no validation. Whatever a library insists on writing goes into `folder`, which is thrown away.
The module imports its library at the top: it can only be imported where that is installed.
"""
