"""A live recommender behind HTTP: events in, lists out."""
