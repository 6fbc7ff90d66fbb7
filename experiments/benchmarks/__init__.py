"""Speed against what people use today, as ratios in one run."""
