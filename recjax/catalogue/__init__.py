"""What the item tower reads of all items, computed once."""
