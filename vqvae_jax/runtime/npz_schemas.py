"""Schemas of a run's npz files: kinds and dimensions of arrays.

`safe_io.read_arrays` checks files against them.
"""

IMAGES = {
    "images": "u N H W C",
    "labels": "i N",
    "class_names": "U K",
    "samples_per_second": "f",
}
CLIPS = IMAGES | {
    "codes": "i clips rows frames h w g",
    "true_codes": "i clips frames h w g",
    "frame": "i clips",
    "given_frames": "i",
}
CONVERSIONS = {
    "index": "i M",
    "speakers": "i M",
    "codes": "i M N",
    "code_lengths": "i M",
    "voices": "i M 2",
    "audio": "i M 2 T",
}
RECONSTRUCTIONS = {
    "frames": "i N",
    "first_stage": "u N H W C",
    "hierarchy": "u N H W C",
    "hierarchy_vae": "u N H W C",
}
