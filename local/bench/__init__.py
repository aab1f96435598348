"""What this program costs, against what is physically needed and what people would write instead, as ratios."""
