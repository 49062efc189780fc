"""What is played next, the rounds themselves, and the training loop over them."""
