"""What runs in the pods of Workspaces: the program of the serving image. Imports nothing of ours but `gpus`."""
