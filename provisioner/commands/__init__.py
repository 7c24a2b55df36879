"""What people ask on the command line: sizes, quota, plans and the state of claims. Reads only."""
