"""The experiments: one file each, which states what differs from the defaults."""
