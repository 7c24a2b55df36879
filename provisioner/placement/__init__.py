"""From what a claim asks for to what to ask Azure for. Pure."""
