"""Full attention inside each graph."""
