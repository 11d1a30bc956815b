"""Studies: several runs under one config, compared."""
