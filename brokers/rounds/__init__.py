"""The round store: one job's live state on Redis, changed by Lua scripts alone."""
