"""What the paper does beyond single images, each task in its own folder."""
