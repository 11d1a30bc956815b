"""Speech (section 4.3)."""
