"""Side projects on top of the package; nothing outside imports them."""
