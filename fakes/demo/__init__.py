"""The main job for a person to see: a NodeClaim becomes a GPU node, and goes away again."""
