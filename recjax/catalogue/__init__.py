"""Per-item arrays that the item tower reads: packing, frozen prefix, whitening."""
