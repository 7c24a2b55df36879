"""The health checks for Argo CD, run by the interpreter of Lua that it has in it."""
