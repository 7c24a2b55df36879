"""The whole controller in a simulated cluster and a simulated Azure: each seed is one history, and replays exactly."""
