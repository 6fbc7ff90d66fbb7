"""Makes tables and plots of finished runs."""
