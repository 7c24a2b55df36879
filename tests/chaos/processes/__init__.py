"""Real processes under fire: a script made from a seed, what carries it out, and what must hold whatever happens."""
