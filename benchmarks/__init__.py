"""What the proxy costs, side by side with others: nothing here is needed to run it."""
