"""What lies between frozen text vectors and the towers, and how alike they are."""
