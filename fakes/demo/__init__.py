"""The main job for a person to see: a Workspace becomes a served model on a GPU node, and goes away again."""
