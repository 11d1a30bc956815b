"""Action-conditional video in the space of codes (section 4.4)."""
