"""A TFDS set of speech synthesised by eSpeak NG."""
