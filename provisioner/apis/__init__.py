"""The objects that the controllers read and write: narrow frozen models, names, condition arithmetic. No I/O."""
