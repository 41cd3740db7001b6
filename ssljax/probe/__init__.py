"""What is in frozen features for a few labels: the bar that training has to beat."""
